"""Metrics become an answer."""
