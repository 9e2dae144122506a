"""Which losses take part, and with which settings."""
