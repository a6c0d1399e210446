"""The one place that unpickles files. A pickle runs whatever code its author wants, so that it has to be trusted."""

from pathlib import Path
from typing import Any

from dr3_ray.errors import UserError
from dr3_ray.runs.keys import is_signed


def unpickle(folder: Path, name: str, trust: bool = False) -> Any:
    """Load a pickle that this user signed, or with `trust` any.

    Raises:
        UserError: the file is missing, or is not this user's and not trusted.
    """
    try:
        content = (folder / name).read_bytes()
    except OSError:
        raise UserError(f"{folder} does not say what it was built with: give from_checkpoint a config") from None
    check_trusted(str(folder), trust or is_signed(folder, name, content))
    from ray import cloudpickle

    return cloudpickle.loads(content)


def check_trusted(what: str, trusted: bool) -> None:
    """Check that these pickles are trusted.

    Raises:
        UserError: they are not; says the reason.
    """
    if not trusted:
        raise UserError(
            f"{what} holds pickles, which run code when they are read, and nothing shows that you made them: "
            "give --trust (in Python trust=True) if you trust whoever did"
        )
