"""All commands, and nothing else."""
