"""Keys of stores on the machines of a cluster: in Ray's memory while a sweep is running, and in no file."""

import json

import ray

from dr3_ray.compat.ray import keep, kept
from dr3_ray.trust.secrets import known_for, remember


def share_keys(text: str) -> None:
    """Let the workers of this job know the keys of what stands masked in a text."""
    if uris := known_for(text):
        keep(_name(), json.dumps(uris).encode())


def take_keys() -> None:
    """Know, in a worker, what its driver has shared."""
    if ray.is_initialized() and (kept_keys := kept(_name())):
        remember(json.loads(kept_keys))


def _name() -> bytes:
    return f"dr3_ray keys of {ray.get_runtime_context().get_job_id()}".encode()
