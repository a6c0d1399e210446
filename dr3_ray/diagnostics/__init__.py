"""What is measured of a critic: on a fixed probe batch while it is trained, and closer by a diagnosis.

Names are imported on first use, so that a report reads diagnoses without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dr3_ray.diagnostics.diagnosis import Diagnosis, Finding, Probe
    from dr3_ray.diagnostics.foreign import diagnose

_HOME = {"Diagnosis": "diagnosis", "Finding": "diagnosis", "Probe": "diagnosis", "diagnose": "foreign"}

__all__ = ["Diagnosis", "Finding", "Probe", "diagnose"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
