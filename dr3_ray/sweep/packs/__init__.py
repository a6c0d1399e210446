"""Which members train together."""
