"""Metrics made smooth."""
