"""Rollouts of many members at once in real environments."""
