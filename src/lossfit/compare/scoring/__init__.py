"""Outputs of models become metrics."""
