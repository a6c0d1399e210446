"""A population of members trained on batches."""
