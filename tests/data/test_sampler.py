"""What a member sees depends on its seed and on nothing else."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dr3_ray.data.sampler import CountingSampler, Sampler, best_first, generator, key, sizes_of
from dr3_ray.types import Noise


@given(st.integers(0, 2**32 - 1))
def test_streams_depend_on_seed_and_purpose(seed: int):
    def first(stream: str, seed: int = seed) -> float:
        return torch.rand(1, generator=generator(seed, stream), dtype=torch.float64).item()

    assert first("init") == first("init")
    assert first("init") != first("sampler") and first("init") != first("init", (seed + 1) % 2**32)
    assert list(divmod(generator(seed, "init").initial_seed(), 2**32)) == key(seed, "init")  # all 64 bits count


def test_a_members_stream_does_not_depend_on_its_pack():
    noise = Noise(normal={"action": (2,)}, uniform={"sampled": (3, 2)})
    pack, alone = Sampler([1000] * 3, 8, noise, [4, 7, 4]), Sampler([1000], 8, noise, [7])
    for _ in range(3):
        indices, draws = pack.draw(slice(0, 3))
        only, only_draws = alone.draw(slice(0, 1))
        assert torch.equal(indices[1], only[0]) and torch.equal(indices[0], indices[2])
        assert not torch.equal(indices[0], indices[1])
        assert (
            draws["sampled"].shape == (3, 8, 3, 2) and draws["sampled"].min() >= -1.0 and draws["sampled"].max() < 1.0
        )
        assert draws["sampled"].max() > 0.5 and draws["sampled"].min() < -0.5
        for name, values in draws.items():
            assert torch.equal(values[1], only_draws[name][0])


def test_a_sampler_goes_on_where_the_state_of_as_many_members_was_taken():
    noise = Noise(normal={"action": (2,)}, uniform={})
    first, second = Sampler([1000] * 2, 8, noise, [4, 7]), Sampler([1000] * 2, 8, noise, [1, 2])
    first.draw(slice(0, 2))
    second.load_state_dict(first.state_dict(), step=1)
    for ours, theirs in zip(first.draw(slice(0, 2)), second.draw(slice(0, 2)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.0, atol=0.0)
    with pytest.raises(ValueError, match="shorter"):
        Sampler([1000], 8, noise, [4, 7]).draw(slice(0, 2))
    with pytest.raises(ValueError, match="longer"):
        Sampler([1000], 8, noise, [4]).load_state_dict(first.state_dict(), step=1)


def test_noise_of_a_step_is_drawn_once_for_all_rows():
    noise = Noise(normal={}, uniform={}, uniform_per_step={"mixture": (5,)})
    draws = [
        Sampler([100] * len(seeds), 8, noise, seeds).draw(slice(0, len(seeds)))[1]["mixture"] for seeds in ([1, 2], [2])
    ]
    assert draws[0].shape == (2, 5) and torch.equal(draws[0][1], draws[1][0])
    assert draws[0].min() >= -1.0 and draws[0].max() < 1.0


def test_rows_are_drawn_uniformly():
    sampler = Sampler([10], 50_000, Noise({}, {}), [0])
    counts = torch.bincount(sampler.draw(slice(0, 1))[0][0], minlength=10)
    assert (counts - 5000).abs().max() < 5 * (50_000 * 0.1 * 0.9) ** 0.5


def test_every_member_draws_from_its_own_number_of_rows():
    sampler = Sampler([10, 3], 500, Noise({}, {}), [0, 0])
    indices = sampler.draw(slice(0, 2))[0]
    assert indices.amax(1).tolist() == [9, 2] and indices.min() == 0


def test_the_best_episodes_come_first_and_whole():
    # rows 0-3, 4-5 and 6-9 of episodes with returns 1, 3, 2
    episodes = {"offsets": [0, 4, 6], "lengths": [4, 2, 4], "returns": [1.0, 3.0, 2.0]}
    order, rows = best_first(episodes, [0.01, 0.2, 0.3, 0.6, 1.0])
    assert order.tolist() == [4, 5, 6, 7, 8, 9, 0, 1, 2, 3]
    assert rows == [2, 2, 6, 6, 10]


NOISE = Noise(normal={"action": (3,)}, uniform={"sampled": (2, 2)}, uniform_per_step={"mixture": (5,)})


def test_a_batch_takes_a_word_for_each_number_and_one_more_where_they_are_odd():
    assert sizes_of(NOISE, 7) == [7, 3 * 7 + 1, 4 * 7, 5 + 1]


def test_counted_draws_are_a_members_own_and_those_of_the_step():
    pack, alone = (CountingSampler([1000] * len(seeds), 7, NOISE, seeds) for seeds in ([4, 7, 4], [7]))
    together = pack.draws(slice(0, 3), 5)
    apart = [alone.draws(slice(0, 1), n) for n in (2, 3)]
    indices, noise = together
    assert indices.shape == (5, 3, 7) and indices.min() >= 0 and indices.max() < 1000
    shapes = {"action": (5, 3, 7, 3), "sampled": (5, 3, 7, 2, 2), "mixture": (5, 3, 5)}
    assert {name: tuple(values.shape) for name, values in noise.items()} == shapes
    assert torch.equal(indices[:, 1:2], torch.cat([each for each, _ in apart])) and torch.equal(
        indices[:, 0], indices[:, 2]
    )
    for name, values in noise.items():
        assert torch.equal(values[:, 1:2], torch.cat([each[name] for _, each in apart])), name
        assert not torch.equal(values[0], values[1]) and not torch.equal(values[:, 0], values[:, 1])
        assert name == "action" or (values.min() >= -1.0 and values.max() < 1.0)


def test_counted_draws_go_on_from_a_step_and_elsewhere_from_others():
    first, second = (CountingSampler([100], 4, NOISE, [seed]) for seed in (3, 9))
    first.draws(slice(0, 1), 6)
    second.load_state_dict(first.state_dict(), step=6)
    assert torch.equal(first.draws(slice(0, 1), 2)[0], second.draws(slice(0, 1), 2)[0])

    def on_a_cpu(step: int) -> list[list[int]]:
        sampler = Sampler([100], 4, NOISE, [3])
        sampler.load_state_dict(first.state_dict(), step)
        return sampler.draw(slice(0, 1))[0].tolist()

    assert on_a_cpu(6) == on_a_cpu(6) != on_a_cpu(7)
    on_a_gpu = CountingSampler([100], 4, NOISE, [3])
    on_a_gpu.load_state_dict(Sampler([100], 4, NOISE, [3]).state_dict(), step=8)
    assert torch.equal(on_a_gpu.draws(slice(0, 1), 1)[0], first.draws(slice(0, 1), 1)[0])


def test_counted_rows_are_each_members_own():
    indices, _ = CountingSampler([3, 50], 4000, Noise({}, {}), [0, 0]).draws(slice(0, 2), 2)
    assert [indices[:, k].unique().tolist() for k in range(2)] == [list(range(3)), list(range(50))]
