"""Which recorded (s', a') are rows, against a comparison of every pair with every row."""

import numpy as np
import pytest

from dr3_ray.data import load_dataset, pairs


def counted(written):
    """The share by sets of bytes."""

    def of(prefix, row):
        names = sorted(name for name in written if name.split("/")[0] in (f"{prefix}observations", f"{prefix}actions"))
        return b"".join(np.ascontiguousarray(written[name][row]).tobytes() for name in names)

    rows = {of("", row) for row in range(len(written["rewards"]))}
    after = [of("next_", row) in rows for row in np.flatnonzero(written["next_actions_valid"])]
    return np.mean(after) if after else None


@pytest.mark.parametrize("keep", [None, 0.5])
@pytest.mark.parametrize("observation", ["float32", "uint8", "dict"])
@pytest.mark.parametrize("chunk", [pairs.CHUNK, 1])
def test_shares(make_dataset, monkeypatch, observation, keep, chunk):
    monkeypatch.setattr(pairs, "CHUNK", chunk)
    path, written = make_dataset(lengths=(9, 1, 30, 2), observation=observation, keep=keep)
    assert pairs.share_of_pairs(load_dataset(path)) == pytest.approx(counted(written))


def test_whole_episodes_hold_all_their_pairs_and_every_part_counts(tmp_path, make_dataset):
    path, _ = make_dataset(lengths=(9, 4))
    whole = load_dataset(path)
    assert pairs.share_of_pairs(whole) == 1.0
    assert pairs.share_of_pairs(load_dataset(f"{path}?take=uniform:0.5")) < 1.0


def test_without_a_next_action_there_is_no_share(make_dataset):
    path, _ = make_dataset(lengths=(1, 1))
    assert np.isnan(pairs.share_of_pairs(load_dataset(path)))
