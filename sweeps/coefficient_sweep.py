"""Sweep DR3's coefficient with Ray Tune: algorithms x data sets x coefficients x seeds, many members in one trial.

    python sweeps/coefficient_sweep.py --dataset embedded:breakout-replay --steps 20000 --out runs/breakout
    python sweeps/coefficient_sweep.py SPEC.yaml --dry-run
    ray submit cluster.yaml sweeps/coefficient_sweep.py -- --dataset /shared/data/pong --out /shared/runs/pong

It is `dr3-ray sweep` as a script, for machines that are given one: `--help` lists the options.
"""

import sys

from dr3_ray.__main__ import main

if __name__ == "__main__":
    main(["sweep", *sys.argv[1:]])
