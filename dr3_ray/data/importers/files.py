"""Files of this machine that sources lie in, opened with one line for what is wrong with them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dr3_ray.data.importers.reading import unreadable
from dr3_ray.errors import UserError
from dr3_ray.uris import path_here

if TYPE_CHECKING:
    import h5py
    import pyarrow.dataset as pads


def existing(path: str) -> Path:
    """Return the path of a file or folder.

    Raises:
        UserError: nothing is there, or it is the URI of something elsewhere.
    """
    found = path_here(path)
    if not found or not found.exists():
        raise UserError(f"{path} does not exist: check the path")
    return found


def hdf5(path: Path) -> "h5py.File":
    """Open an HDF5 file for reading.

    Raises:
        UserError: it is none, or cut off.
    """
    import h5py

    try:
        return h5py.File(path, "r", rdcc_nbytes=2**24)
    except OSError as error:
        raise unreadable(path, "HDF5 file", error) from None


def hdf5_keys(path: Path) -> set[str]:
    """Return the names at the top of an HDF5 file; none if it is another file.

    Raises:
        UserError: it is cut off.
    """
    import h5py

    if not path.is_file() or not h5py.is_hdf5(path):
        return set()
    with hdf5(path) as file:
        return set(file)


def arrow_data(path: Path, kind: str, **options: Any) -> "pads.Dataset":
    """Open a CSV or Parquet file, or a folder of such.

    Raises:
        UserError: it cannot be read.
    """
    import pyarrow as pa
    import pyarrow.dataset as pads

    try:
        files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
        return pads.dataset(files, format=pads.CsvFileFormat(**options) if kind == "csv" else kind)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, f"{kind} table", error) from None
