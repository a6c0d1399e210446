"""How gradient steps are carried out: each wraps a run of steps, and none changes what they compute."""
