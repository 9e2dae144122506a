"""A task is trained: all settings of a loss on several splits at once."""
