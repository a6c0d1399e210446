"""Search DR3's coefficient and the critic's learning rate with Optuna: TPE, a Gaussian process, NSGA-II or chance.

    python sweeps/optuna_search.py --dataset embedded:breakout-replay --steps 10000 --trials 32 --out runs/search
    python sweeps/optuna_search.py --search nsga2 --objective episode_return_mean --objective dot_product --trials 64
    python sweeps/optuna_search.py SPEC.yaml
    ray submit cluster.yaml sweeps/optuna_search.py -- --dataset /shared/data/pong --out /shared/runs/pong

It is `dr3-ray sweep` with a space to search: coefficients from 0.0001 to 1 and learning rates from 0.00001 to 0.003,
both logarithmic, after coefficient 0. A SPEC stands instead of them. Options stand above both; `--help` lists them. At
the end it prints the best configurations, or for several objectives their Pareto front. docs/search.md says more.
"""

import sys

from dr3_ray.__main__ import main

AXIS = "critic_lr"
SPACE = {
    "--dataset": "embedded:breakout-replay",
    "--coefficients": '{"log_uniform": [1e-4, 1]}',
    "--axis": AXIS + '={"log_uniform": [1e-5, 3e-3]}',
    "--point": '{"dr3_coeff": 0}',
    "--search": "tpe",
    "--trials": "32",
    "--out": "runs/search",
}


def space_beside(given: list[str]) -> list[str]:
    """Return the options of the script in whose place none is given; axes and points come to those that are."""
    names = {word.partition("=")[0] for word in given} - {"--axis", "--point"}
    if any(word.removeprefix("--axis=").startswith(f"{AXIS}=") for word in given):
        names.add("--axis")
    return [word for name, value in SPACE.items() if name not in names for word in (name, value)]


if __name__ == "__main__":
    given = sys.argv[1:]
    has_own = {"--help", "--resume"} & set(given) or (given and not given[0].startswith("-"))
    main(["sweep", *([] if has_own else space_beside(given)), *given], "optuna_search.py")
