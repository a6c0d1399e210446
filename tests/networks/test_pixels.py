"""Convolutions, encoders and crops, each against plain torch or by hand."""

import pytest
import torch
from torch import Tensor, nn

from dr3_ray.data.sampler import generator
from dr3_ray.errors import UserError
from dr3_ray.networks.architecture import Architecture
from dr3_ray.networks.augmentations import random_crop
from dr3_ray.networks.critics import ContinuousCritic
from dr3_ray.networks.discrete_critics import DiscreteCritic
from dr3_ray.networks.pixels import PixelEncoder, crop_images
from dr3_ray.types import Spaces


def generators(*seeds: int) -> list[torch.Generator]:
    return [generator(seed, "init") for seed in seeds]


def images(*shape: int) -> Tensor:
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("encoder", "shape", "parameters", "n_out"),
    [
        # Mnih et al.: 8·8·4·32 + 32, 4·4·32·64 + 64, 3·3·64·64 + 64, and 7 × 7 × 64 outputs
        ("nature_cnn", (84, 84, 4), 8224 + 32832 + 36928, 3136),
        # a stage of n filters on m channels: 9mn + n and four times 9nn + n; 84 → 42 → 21 → 11
        ("impala", (84, 84, 4), 592 + 4 * 2320 + 4640 + 4 * 9248 + 9248 + 4 * 9248, 11 * 11 * 32),
        # 48 → 24 → 12
        ("cog", (48, 48, 3), 448 + 2320 + 2320, 12 * 12 * 16),
    ],
)
def test_sizes_are_those_of_the_papers(encoder: str, shape: tuple[int, int, int], parameters: int, n_out: int):
    network = PixelEncoder(encoder, generators(0), shape)
    assert sum(each.numel() for each in network.parameters()) == parameters
    assert network.n_out == n_out
    assert network(images(1, 2, *shape), torch.float32).shape == (1, 1, 2, n_out)


def test_nature_cnn_in_plain_torch():
    network = PixelEncoder("nature_cnn", generators(0, 1), (40, 40, 2), copies=2)
    x = images(2, 3, 40, 40, 2)
    y = network(x, torch.float32)
    convolutions = nn.Conv2d(2, 32, 8, 4), nn.Conv2d(32, 64, 4, 2), nn.Conv2d(64, 64, 3)
    plain = nn.Sequential(*(layer for each in convolutions for layer in (each, nn.ReLU())), nn.Flatten())
    for k in range(2):
        for c in range(2):
            for ours, theirs in zip(network.layers[0], plain[:-1:2], strict=True):
                theirs.weight.data, theirs.bias.data = ours.weight[k, c], ours.bias[k, c]
            torch.testing.assert_close(y[k, c], plain(x[k].permute(0, 3, 1, 2) / 255.0))


@pytest.mark.parametrize("encoder", ["impala", "cog"])
def test_members_and_copies_do_not_mix(encoder: str):
    network = PixelEncoder(encoder, generators(0, 1), (8, 8, 3), copies=2)
    x = images(2, 3, 8, 8, 3)
    y = network(x, torch.float32)
    for k in range(2):
        alone = PixelEncoder(encoder, generators(k), (8, 8, 3), copies=2)
        torch.testing.assert_close(alone(x[k : k + 1], torch.float32), y[k : k + 1])
    assert not torch.allclose(y[:, 0], y[:, 1])


def test_the_channels_may_come_first():
    last = PixelEncoder("cog", generators(0), (8, 8, 3))
    first = PixelEncoder("cog", generators(0), (3, 8, 8))
    x = images(1, 4, 8, 8, 3)
    torch.testing.assert_close(first(x.permute(0, 1, 4, 2, 3), torch.float32), last(x, torch.float32))


def test_bytes_are_divided_by_255_and_other_images_are_not():
    network = PixelEncoder("cog", generators(0), (8, 8, 3))
    x = images(1, 4, 8, 8, 3)
    torch.testing.assert_close(network(x, torch.float32), network(x / 255.0, torch.float32))


def test_a_crop_moves_the_image_and_fills_with_zeros():
    image = torch.arange(1, 17).view(1, 1, 4, 4, 1)  # rows 1-4, 5-8, 9-12, 13-16
    # three offsets of equal width in [−1, 1): −1, 0, 1; the first number moves up and down
    moved = random_crop(image, torch.tensor([[[0.9, -0.9]]]), 1)[0, 0, :, :, 0]
    assert moved.tolist() == [[0, 5, 6, 7], [0, 9, 10, 11], [0, 13, 14, 15], [0, 0, 0, 0]]
    assert torch.equal(random_crop(image, torch.tensor([[[0.0, 0.3]]]), 1), image)
    first = random_crop(image.view(1, 1, 1, 4, 4), torch.tensor([[[0.9, -0.9]]]), 1)[0, 0, 0]
    assert torch.equal(first, moved)


def test_crops_are_uniform_and_every_image_has_its_own():
    uniform = torch.rand(1, 20_000, 2, generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0
    centre = torch.zeros(1, 1, 5, 5, 1)
    centre[0, 0, 2, 2] = 1.0
    found = random_crop(centre.expand(1, 20_000, 5, 5, 1), uniform, 2)
    assert torch.equal(found.sum((2, 3, 4)), torch.ones(1, 20_000))
    shares = found.mean((0, 1, 4))  # each of 25 places: 0.04 ± 4 · √(0.04 · 0.96 / 20000)
    assert (shares - 0.04).abs().max() < 0.006


def test_all_images_of_an_observation_move_alike_and_vectors_stay():
    observations = {"left": images(1, 2, 8, 8, 3), "right": images(1, 2, 8, 8, 3), "state": torch.randn(1, 2, 3)}
    moved = crop_images(observations, torch.rand(1, 2, 2), 4)
    assert isinstance(moved, dict)
    assert torch.equal(moved["left"], moved["right"]) and not torch.equal(moved["left"], observations["left"])
    assert torch.equal(moved["state"], observations["state"])


SHAPE = {"camera": (8, 8, 3), "state": (2, 2)}


def test_dict_observations_stand_side_by_side():
    network = Architecture(SHAPE, (8,), {"camera": "cog"}).observation_encoder(generators(0, 1), copies=2)
    observations = {"state": torch.randn(2, 5, 2, 2), "camera": images(2, 5, 8, 8, 3)}
    vectors = network(observations, torch.float32)
    assert vectors.shape == (2, 2, 5, 2 * 2 * 16 + 4) and network.n_out == 68
    assert torch.equal(vectors[:, 1, :, 64:], observations["state"].flatten(2))
    torch.testing.assert_close(vectors[..., :64], network.pixels[0](observations["camera"], torch.float32))


def test_one_encoder_for_all_images_is_the_same_as_naming_them():
    named = Architecture(SHAPE, (8,), {"camera": "impala"})
    assert Architecture(SHAPE, (8,), "impala").encoders() == named.encoders() == {"camera": "impala", "state": "flat"}
    assert Architecture(SHAPE, (8,)).encoders() == {"camera": "flat", "state": "flat"}


def test_the_action_is_joined_behind_the_convolutions():
    critic = ContinuousCritic(generators(0, 1), Architecture((8, 8, 3), (16, 6), "cog"), 2)
    x, actions = images(2, 5, 8, 8, 3), torch.rand(2, 5, 3, 2)
    q, phi = critic(x, actions)
    assert q.shape == (2, 2, 5, 3) and phi.shape == (2, 2, 5, 3, 6)
    for n in range(3):
        torch.testing.assert_close(critic(x, actions[:, :, n])[0], q[..., n])
    assert critic.encoder.layers[0].weight.shape[2] == 2 * 2 * 16 + 2


def test_phi_is_the_input_of_the_last_layer_behind_an_image():
    critic = DiscreteCritic(generators(0), Architecture((8, 8, 3), (16, 6), "impala"), 3)
    q, phi = critic(images(1, 5, 8, 8, 3))
    torch.testing.assert_close(q, phi @ critic.head.weight + critic.head.bias)


@pytest.mark.parametrize(
    ("shape", "encoder", "message"),
    [
        ((3,), "cog", r"encoder 'cog' needs images .*: the observations have shape \(3,\); use 'flat'"),
        ((10, 10, 4), "nature_cnn", r"'nature_cnn' needs images of at least 36×36 pixels, not \(10, 10, 4\)"),
        (SHAPE, {"camrea": "cog"}, "encoder names 'camrea', but the observations have camera, state"),
        (SHAPE, {"state": "cog"}, r"'cog' needs images of at least 4×4 pixels, not \(2, 2\)"),
        ((8, 8, 3), {"camera": "cog"}, "encoder names 'camera', but the observations have no named parts"),
    ],
    ids=str,
)
def test_an_encoder_without_its_image_fails_in_one_line(shape: object, encoder: object, message: str):
    with pytest.raises(UserError, match=message) as error:
        Architecture(shape, (8,), encoder)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_the_architecture_of_options():
    class Given:
        hidden_sizes, encoder = (8,), "impala"

    spaces = Spaces((8, 8, 3), "discrete", 2)
    assert Architecture.of(Given, spaces) == Architecture((8, 8, 3), (8,), "impala")
