"""Weights of this project and those of others: out and in, by format."""
