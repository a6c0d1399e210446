"""Trained policies as they are used: loaded from a run or a checkpoint, played, and exported. torch alone is needed."""
