"""Rows become numbers."""
