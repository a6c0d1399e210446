"""What a sweep is asked for, and which members that means."""
