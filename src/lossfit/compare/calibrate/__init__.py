"""Predictions in a file are calibrated and measured."""
