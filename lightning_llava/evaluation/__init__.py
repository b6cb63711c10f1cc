"""Benchmarks, scorers, answers and reports."""
