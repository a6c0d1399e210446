"""What is measured of a critic on a fixed probe batch."""
