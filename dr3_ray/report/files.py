"""Files of a report, which are whole or not there."""

from pathlib import Path

from dr3_ray.errors import UserError
from dr3_ray.stores import make_folder, replace_file


def write_whole(path: Path, content: bytes) -> Path:
    """Write a file as a whole or not at all; return its path.

    Raises:
        UserError: it cannot be written.
    """
    try:
        make_folder(path.parent)
        replace_file(path, content)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}): make room, get the permission, or choose another place"
        ) from error
    return path
