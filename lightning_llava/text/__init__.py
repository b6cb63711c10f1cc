"""Tokenizers, conversation templates and labels."""
