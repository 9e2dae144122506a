"""The primitive: the target's score of a row, its rivals' score, and their gradients."""
