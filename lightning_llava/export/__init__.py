"""Checkpoints handed on: the command line, the check of what was written, the push."""
