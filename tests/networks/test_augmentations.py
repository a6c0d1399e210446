"""Changes of images, pixel by pixel."""

import pytest
import torch

from dr3_ray.networks.augmentations import brightened, cutout, moved, noised

IMAGE = torch.arange(1, 13, dtype=torch.uint8).view(1, 3, 4, 1)  # 3 rows of 4 pixels, one channel
TYPES = [torch.uint8, torch.bool, torch.float32]


def test_an_image_is_moved_and_zeros_come_in():
    assert moved(IMAGE, torch.tensor([[1, -1]]))[0, ..., 0].tolist() == [[0, 5, 6, 7], [0, 9, 10, 11], [0, 0, 0, 0]]
    assert torch.equal(moved(IMAGE, torch.zeros(1, 2, dtype=torch.int64)), IMAGE)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("first", [False, True])
def test_a_rectangle_is_covered_wherever_the_channels_are(kind, first):
    ones = torch.ones(500, *((3, 8, 12) if first else (8, 12, 3))).to(kind)
    uniform = torch.rand(500, 2, generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0
    covered = cutout(ones, uniform, 0.25)
    assert covered.dtype == kind
    zeros = (covered == 0).float().movedim(1 if first else -1, -1)
    assert (
        (zeros.sum((1, 2)) == 2 * 3).all() and (zeros.amax(1).sum(1) == 3).all() and (zeros.amax(2).sum(1) == 2).all()
    )
    assert zeros.mean(0).min() > 0  # every pixel now and then
    assert (cutout(ones, uniform, 0.01) == 0).float().sum((1, 2, 3)).tolist() == [3.0] * 500  # a pixel of each channel
    assert not cutout(ones, uniform, 1.0).any()


def test_bytes_stay_bytes_and_in_their_range():
    pixels = torch.tensor([0, 100, 250], dtype=torch.uint8).view(1, 1, 3, 1).expand(2, -1, -1, -1)
    brighter = brightened(pixels, torch.tensor([0.1, -0.5]), 0.0, 255.0)
    assert brighter.dtype == torch.uint8
    assert brighter[:, 0, :, 0].tolist() == [[26, 126, 255], [0, 0, 122]]  # 25.5 and 127.5, to the even whole number
    noise = torch.tensor([1.0, -1.0, 1.0]).view(1, 1, 3, 1).expand(2, -1, -1, -1)
    assert noised(pixels, noise, 0.04, 0.0, 255.0)[0, 0, :, 0].tolist() == [10, 90, 255]
    assert noised(pixels.float() / 255, noise, 0.04, 0.0, 1.0)[0, 0, 0, 0] == pytest.approx(0.04)
