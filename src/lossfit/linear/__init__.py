"""Losses from features and the weights of a last layer, without the matrix of scores."""
