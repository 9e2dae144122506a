"""Losses of sequences: token by token, of whole sequences, and over the paths of a chain."""
