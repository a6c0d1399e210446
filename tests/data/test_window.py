"""The windows of training on data larger than memory: which rows they have, when, and how far that is from uniform."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dr3_ray.data import load_dataset
from dr3_ray.data.window import Table, Walk, Window, block_rows

walks = st.builds(
    lambda rows, share, row_bytes, start, key: Walk(rows, max(1, int(share * rows)), row_bytes, rows, start, key),
    st.integers(1, 5000),
    st.floats(0.0, 1.0),
    st.sampled_from([1, 200, 10_000, 100_000]),
    st.integers(0, 100),
    st.integers(0, 2),
)


@given(walks, st.integers(0, 3))
def test_a_pass_has_every_row_once(walk: Walk, number: int):
    starts, sizes = walk.blocks(number * walk.n, (number + 1) * walk.n)
    assert np.ptp(sizes) <= 1
    rows = np.concatenate([np.arange(*each) for each in zip(starts, starts + sizes, strict=True)])
    assert len(rows) == walk.rows and np.array_equal(np.sort(rows), np.arange(walk.rows) + walk.start)


@given(walks, st.integers(1, 4))
@settings(max_examples=50)
def test_every_block_is_in_as_many_windows(walk: Walk, passes: int):
    """Up to the stays that have begun before these passes, or end after them: one stay at each end."""
    starts = walk.blocks(0, passes * walk.n + walk.length - 1).starts
    stays = np.zeros(walk.start + walk.rows, int)
    for first in range(passes * walk.n):
        np.add.at(stays, starts[first : first + walk.length], 1)
    stays = stays[np.unique(starts)]
    assert len(stays) == walk.n and stays.sum() == passes * walk.n * walk.length
    assert (abs(stays - passes * walk.length) < walk.length).all()


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=3), st.integers(1, 2000), st.integers(1, 64), st.data())
def test_a_window_is_a_function_of_the_update_and_moves_one_way(parts, rows, batch_size, data):
    window, again = (Window(parts, rows, 200, batch_size) for _ in range(2))
    step, more = data.draw(st.integers(0, 10**6)), data.draw(st.integers(1, 50))
    device = torch.device("cpu")
    for ours, theirs in zip(window.table(step, device), again.table(step, device), strict=True):
        assert torch.equal(ours, theirs)
    for (first, _), (later, _) in zip(window.places(step), window.places(step + more), strict=True):
        assert first <= later
    for walk in window.walks:
        assert walk.length == 1 or walk.blocks(0, walk.length).sizes.sum() <= rows * walk.rows // sum(parts)
        assert walk.place(sum(parts)) == walk.n  # every part is passed through in the time of all rows


def test_a_number_in_the_window_is_a_row_of_its_blocks():
    walks = [Walk(100, 40, 10**5, 400), Walk(300, 90, 10**5, 400, start=100, key=1)]
    parts = [walk.blocks(3, 3 + walk.length) for walk in walks]
    table = Table.of(parts)
    for part, blocks in enumerate(parts):
        numbers = torch.arange(int(table.rows[part]))
        rows = table.row(numbers, torch.full_like(numbers, part))
        wanted = [np.arange(*each) for each in zip(blocks.starts, blocks.starts + blocks.sizes, strict=True)]
        assert rows.tolist() == np.concatenate(wanted).tolist()


def test_a_window_has_1024_blocks_where_their_bytes_allow_it():
    assert block_rows(10**6, 1000) == 976  # between 256 KiB and 4 MiB
    assert block_rows(10**6, 100) == 2621 and block_rows(10**7, 1000) == 4194
    assert block_rows(10**4, 56_000) == 16  # never fewer rows,
    assert block_rows(640, 56_000) == 10 and block_rows(10, 56_000) == 1  # but for 64 blocks


def distance(values: np.ndarray, window: int, row_bytes: int, batch_size: int) -> tuple[float, float]:
    """Return the variance of batch means over that of uniform sampling: over 20 passes, and as docs/data.md has it.

    1 + (B − 1) V/σ², where V = σ_b²/W · (n − W)/(n − 1) is the variance of the mean of W of n blocks. The variance of
    the blocks' means is σ_b², that of all rows σ².
    """
    walk = Walk(len(values), window, row_bytes, len(values))
    starts, sizes = walk.blocks(0, 20 * walk.n)
    sums = [np.r_[0, np.cumsum(values**power)] for power in (1, 2)]
    blocks = [sizes, *(each[starts + sizes] - each[starts] for each in sums)]
    ends = [np.r_[0, each.cumsum()] for each in blocks]
    rows, first, second = (each[walk.length :] - each[: -walk.length] for each in ends)
    means = first / rows
    within = second / rows - means**2
    found = np.var(means) + within.mean() / batch_size
    of_blocks = np.var(blocks[1] / blocks[0]) / walk.length * (walk.n - walk.length) / (walk.n - 1)
    return float(found / (values.var() / batch_size)), float(1 + (batch_size - 1) * of_blocks / values.var())


@pytest.mark.parametrize("batch_size", [32, 256])
def test_how_far_from_uniform_batches_are(batch_size: int):
    """On sorted rows, the worst there are, and on episodes: as the formula says; less with more blocks."""
    data = load_dataset("embedded:pendulum-replay")
    rewards = data.gather(torch.arange(len(data)), ["rewards"])["rewards"].double().numpy()
    for values in (np.arange(20_000.0), rewards - rewards.mean()):
        for window in (2000, 10_000):
            found, expected = distance(values, window, 1, batch_size)
            assert found == pytest.approx(expected, rel=0.2)
    few, many = (distance(np.arange(200_000.0), window, 2**14, batch_size)[0] - 1 for window in (2_048, 65_536))
    assert many < 0.2 * few
