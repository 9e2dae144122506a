"""Losses of any number of right classes."""
