"""A source becomes a classification problem, with its splits."""
