"""Ray brings psutil, which the tests of this folder look at processes with."""

import ray  # noqa: F401
