"""Scorers: a pure functional pair and a torchmetrics Metric each."""
