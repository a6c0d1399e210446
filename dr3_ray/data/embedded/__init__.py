"""The data sets that come with the package, as `embedded:NAME`."""

from pathlib import Path

from dr3_ray.data.schema import MANIFEST
from dr3_ray.errors import UserError


def embedded_names() -> list[str]:
    """Names of the data sets inside the package."""
    return sorted(manifest.parent.name for manifest in Path(__file__).parent.glob(f"*/{MANIFEST}"))


def embedded_path(name: str) -> Path:
    """The directory of the embedded data set `name`; UserError lists the known ones."""
    if name not in embedded_names():
        raise UserError(f"there is no embedded data set {name!r}: choose from {', '.join(embedded_names()) or 'none'}")
    return Path(__file__).parent / name
