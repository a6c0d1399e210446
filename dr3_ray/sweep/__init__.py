"""Sweeps: spec -> members -> packs -> Tune, with an index of runs and their histories."""
