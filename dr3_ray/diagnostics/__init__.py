"""What is measured of a critic: on a fixed probe batch while it is trained, and closer by a diagnosis."""

from dr3_ray.diagnostics.diagnosis import Diagnosis, Finding, Probe
from dr3_ray.diagnostics.foreign import diagnose

__all__ = ["Diagnosis", "Finding", "Probe", "diagnose"]
