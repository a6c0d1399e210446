"""Becomes a worker of Ray, as Ray's own `setup_worker.py` does, which imports all of Ray to read two arguments.

The raylet of a Ray that a sweep starts runs it: START.py WORKER.py ARGUMENTS…; two arguments say in which environment.
What is more than variables of the environment is left to Ray's script beside WORKER.py.
"""

import json
import os
import sys
from typing import Any

CONTEXT, LANGUAGE = "--serialized-runtime-env-context=", "--language="


def command(arguments: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return the command of the worker that these arguments ask for, and its variables of the environment."""
    contexts = [json.loads(word[len(CONTEXT) :]) for word in arguments if word.startswith(CONTEXT)]
    context: dict[str, Any] = contexts[0] if contexts else {}
    variables = context.pop("env_vars", {})
    python = context.pop("py_executable", sys.executable)
    plain = not any(context.values()) and python == sys.executable and "$" not in "".join(variables.values())
    if f"{LANGUAGE}PYTHON" not in arguments or not plain:
        return [sys.executable, os.path.join(os.path.dirname(arguments[0]), "setup_worker.py"), *arguments], {}
    return [python, *(word for word in arguments if not word.startswith((CONTEXT, LANGUAGE)))], variables


if __name__ == "__main__":
    worker, variables = command(sys.argv[1:])
    os.execve(worker[0], worker, os.environ | variables)
