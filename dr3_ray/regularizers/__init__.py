"""Wrappers around objectives: DR3, and what it is compared with."""
