"""The folders that a command writes to, besides those that it is given: caches, and Ray's temporary folder.

`DR3_RAY_CACHE` names the one of all caches; the libraries' own variables stand above it. `RAY_TMPDIR` names Ray's.
"""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from dr3_ray.errors import UserError
from dr3_ray.uris import path_here

CACHE = "DR3_RAY_CACHE"
CACHES = {
    "MPLCONFIGDIR": "matplotlib",
    "TORCHINDUCTOR_CACHE_DIR": "compiled",
    "TRITON_CACHE_DIR": "triton",
    "WANDB_CACHE_DIR": "wandb",
    "WANDB_CONFIG_DIR": "wandb",
    "WANDB_DATA_DIR": "wandb",
}
"""The variables by which libraries are told where to keep theirs, and its name in the folder of all caches."""
SETTINGS = {"MPLCONFIGDIR": "~/.config/matplotlib", "WANDB_CONFIG_DIR": "~/.config/wandb"}
"""What a person may have put there stands: where these exist, they are used."""


def cache_home() -> Path:
    """Return the folder of all caches: `DR3_RAY_CACHE`, else `~/.cache/dr3-ray`, else one of this user in TMPDIR.

    The last is for a home directory in which nothing can be written.

    Raises:
        UserError: the variable names something that is not on this machine.
    """
    try:
        if asked := path_here(os.environ.get(CACHE) or None):
            return asked.expanduser()
    except UserError as error:
        raise UserError(f"{CACHE}: {error}") from None
    usual = Path("~/.cache/dr3-ray").expanduser()
    return usual if can_be_written(usual) else Path(tempfile.gettempdir(), f"dr3-ray-{os.getuid()}")


def can_be_written(folder: Path) -> bool:
    """Return whether a folder, or what it would be made in, can be written; nothing is made."""
    if not folder.is_absolute():  # a home directory that is not known
        return False
    for there in (folder, *folder.parents):
        try:
            if there.lstat():
                return there.is_dir() and os.access(there, os.W_OK | os.X_OK)
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return False


def settle_caches() -> None:
    """Have the libraries of this process, and of those that it starts, keep their caches in ours.

    A variable that names no folder of this machine is left for the command to refuse, which says it in a line.
    """
    with suppress(UserError):
        home = cache_home()
        for variable, name in CACHES.items():
            if variable in SETTINGS and Path(SETTINGS[variable]).expanduser().is_dir():
                continue
            os.environ.setdefault(variable, str(home / name))
