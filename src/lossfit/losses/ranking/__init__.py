"""Losses of the order of rows."""
