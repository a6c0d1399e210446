"""The data sets that come with the package, as `embedded:NAME`."""

from pathlib import Path

from dr3_ray.data.schema import MANIFEST
from dr3_ray.errors import check_known


def embedded_names() -> list[str]:
    """Return the names of the data sets inside the package."""
    return sorted(manifest.parent.name for manifest in Path(__file__).parent.glob(f"*/{MANIFEST}"))


def embedded_path(name: str) -> Path:
    """Return the directory of the embedded data set `name`.

    Raises:
        UserError: there is none of this name; lists the known ones.
    """
    check_known("embedded data set", [name], embedded_names())
    return Path(__file__).parent / name
