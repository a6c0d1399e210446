"""What `dr3-ray select` has left in a run: that it ranked settings without returns, and whether that still holds."""

import io
from typing import NamedTuple

import pandas as pd

from dr3_ray.errors import UserError
from dr3_ray.report.reader import Run
from dr3_ray.stores import content_of, inside

FILE = "selection.csv"  # of a run: a row for each finished member and checkpoint


class Ranked(NamedTuple):
    """The file, as it lies there, and a sentence about it."""

    content: bytes
    sentence: str


def read_ranked(run: Run) -> Ranked | None:
    """Return what `dr3-ray select` has written into a run; None where it has not been asked.

    Raises:
        UserError: the file is damaged.
    """
    path = inside(run.path, FILE)
    try:
        content = content_of(path)
        rows = pd.read_csv(io.BytesIO(content), usecols=["member", "step", "configuration"])
        known = set(zip(rows["member"], rows["step"].astype(int), strict=True))
    except FileNotFoundError:
        return None
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is not what `dr3-ray select` writes ({error}): select again, or remove it") from None
    finished = run.members[run.members["status"] == "finished"]
    settings = run.members[run.facets].astype(str).agg(" ".join, axis=1)
    several = set(zip(rows["member"].map(settings), rows["configuration"], strict=True))
    new = len(set(zip(finished.index, finished["last_step"], strict=True)) - known)
    said = f"`dr3-ray select` has ranked {len(several)} configurations without returns"
    later = f"; {new} members have finished since: select again" if new else ""
    return Ranked(content, said + later)
