"""Losses of one right class: scores -> gap -> link -> reduce."""
