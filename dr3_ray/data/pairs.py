"""Which backups stay within the data: the share of recorded pairs (s', a') that are rows themselves."""

import numpy as np

from dr3_ray.data.columns import Columns
from dr3_ray.data.number_types import Array
from dr3_ray.data.reader import Dataset

CHUNK = 2**24  # bytes of rows that are read together


def share_of_pairs(data: Dataset) -> float:
    """Return the share of backups from a recorded action whose (s', a') is a row (s, a) of the data, bit for bit.

    SARSA's features at (s', a') are held by its own loss only there (Kumar et al. 2022, section 3.1): whole episodes of
    a replay have a share of 1, rows drawn from it one by one much less. Rows are compared by hashes of 64 bits. NaN
    where no recorded action follows, as in episodes of one step.
    """
    rows, pairs, valid = [], [], []
    at_once = max(1, CHUNK // (2 * data.observation_space.size * 4))
    for start in range(0, len(data), at_once):
        stored = data.stored(start, start + at_once)
        rows.append(_hashes(stored, "observations", "actions"))
        pairs.append(_hashes(stored, "next_observations", "next_actions"))
        valid.append(stored["next_actions_valid"])
    in_backup = np.concatenate(pairs)[np.concatenate(valid)]
    return float(np.isin(in_backup, np.concatenate(rows)).mean()) if len(in_backup) else np.nan


def _hashes(stored: Columns, *columns: str) -> Array:
    """Return a hash of these columns of each row [R], Python's own, which is another one in another process."""
    parts = [column for name, column in stored.items() if name.partition("/")[0] in columns]
    raw = [np.ascontiguousarray(part.reshape(len(part), -1)).view(np.uint8) for part in parts]
    content = np.concatenate(raw, axis=1)
    rows = content.view(f"V{content.shape[1]}").reshape(-1).tolist()
    return np.fromiter(map(hash, rows), np.int64, len(rows))
