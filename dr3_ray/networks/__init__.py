"""Networks of K members at once: every parameter is [K, ...]."""
