"""Numbers by counting: the generator's published answers, and what is made of its words."""

import math

import pytest
import torch
from scipy import stats

from dr3_ray.data.philox import integers, normal, philox, uniform, words

ONES = 0xFFFFFFFF
PI = 0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0  # its first words
# kat_vectors of Random123, philox4x32 with 10 rounds
ANSWERS = [
    ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ((ONES,) * 4, (ONES,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (PI[:4], PI[4:], "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


@pytest.mark.parametrize(("counter", "key", "answer"), ANSWERS)
def test_published_answers(counter, key, answer):
    found = philox(tuple(map(torch.tensor, counter)), tuple(map(torch.tensor, key)))
    assert " ".join(f"{int(word):08x}" for word in found) == answer


def test_a_key_has_its_own_words_at_every_step():
    keys, steps = torch.tensor([[1, 2], [3, 4], [1, 2]]), torch.tensor([[0, 0, 0], [1, 1, 2**33]])
    found = words(keys, steps, torch.arange(5))
    assert found.shape == (2, 3, 20) and found.min() >= 0 and found.max() <= ONES
    assert torch.equal(found[0, 0], found[0, 2])
    others = [found[0, 0], found[0, 1], found[1, 0], found[1, 1], found[1, 2]]
    assert len({tuple(each.tolist()) for each in others}) == 5
    assert torch.equal(words(keys[1:2], steps[:, 1:2], torch.arange(3)), found[:, 1:2, :12])


def test_words_are_those_of_the_block_the_step_and_the_key():
    step = 2**33 + 5  # it needs both halves of the counter
    found = words(torch.tensor([[3, 4]]), torch.tensor([[step]]), torch.arange(3))[0, 0].view(3, 4)
    for block in range(3):
        answer = philox((torch.tensor(block), 0, 5, 2), (3, 4))
        assert found[block].tolist() == [int(word) for word in answer]


def test_distributions():
    found = words(torch.tensor([[7, 8]]), torch.zeros(1, 1, dtype=torch.int64), torch.arange(50_000))[0, 0]
    assert stats.kstest(normal(found).numpy(), "norm").pvalue > 1e-3
    assert stats.kstest(uniform(found).numpy(), "uniform", (-1.0, 2.0)).pvalue > 1e-3
    counts = torch.bincount(integers(found, torch.tensor(10)), minlength=10)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
    pairs = normal(found).view(2, -1)  # of one radius
    assert abs(torch.corrcoef(pairs)[0, 1]) < 4 / math.sqrt(pairs.shape[1])


def test_extreme_words():
    extremes = torch.tensor([0, 0, ONES, ONES, 0, ONES, 0, ONES])
    assert normal(extremes).isfinite().all()
    assert uniform(extremes).min() == -1.0 and uniform(extremes).max() < 1.0
    assert integers(extremes, torch.tensor(2**31 - 1)).tolist() == [0, 0, *[2**31 - 2] * 2, 0, 2**31 - 2, 0, 2**31 - 2]
