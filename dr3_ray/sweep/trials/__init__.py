"""What runs in Tune."""
