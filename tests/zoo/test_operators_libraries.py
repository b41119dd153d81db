"""The operators against the same ones in public libraries, where these can be installed."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from invariscope.zoo.operators.blur import blur, max_blur


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(12, 16), (13, 10)])
@pytest.mark.parametrize("m", [3, 5, 7])
@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_blur_of_timm_with_an_odd_filter(timm: ModuleType, m: int, mode: str, size: tuple[int, int]) -> None:
    """At stride 2 timm pads both sides by ``m // 2``: for odd m that is this project's blur."""
    x = images(2, 5, *size)
    layer = timm.layers.BlurPool2d(5, filt_size=m, stride=2, pad_mode=mode).double()
    close(blur(x, m, 2, mode), layer(x))


@pytest.mark.parametrize("m", [2, 4, 6])
def test_blur_of_timm_with_an_even_filter_is_another(timm: ModuleType, m: int) -> None:
    """With an even m timm pads a pixel more at the left and the top, and gives a row and a column more."""
    x = images(2, 5, 12, 16)
    theirs = timm.layers.BlurPool2d(5, filt_size=m, stride=2).double()(x)
    assert theirs.shape == (2, 5, 7, 9)
    assert blur(x, m, 2, "reflect").shape == (2, 5, 6, 8)
    moved = blur(F.pad(x, (1, 1, 1, 1), mode="reflect"), m, 2, "reflect")
    close(moved[..., 2:-2, 2:-2], theirs[..., 2:-2, 2:-2])


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize(("mode", "name"), [("zeros", "zero"), ("reflect", "refl"), ("replicate", "repl")])
def test_blur_of_the_papers_package(antialiased_cnns: ModuleType, m: int, mode: str, name: str) -> None:
    for stride in (1, 2, 3):
        x = images(2, 5, 13, 16)
        layer = antialiased_cnns.BlurPool(5, pad_type=name, filt_size=m, stride=stride).double()
        close(blur(x, m, stride, mode), layer(x))


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5, 6])
def test_blur_of_kornia(kornia: ModuleType, m: int) -> None:
    for size in ((12, 16), (13, 10)):
        x = images(2, 5, *size)
        close(blur(x, m, 2), kornia.filters.BlurPool2D(m, 2)(x))
        close(blur(x, m, 3), kornia.filters.blur_pool2d(x, m, 3))


def test_max_blur_of_kornia_and_of_the_papers_package(kornia: ModuleType, antialiased_cnns: ModuleType) -> None:
    """Both take the maximum without padding, which loses a row and a column; inside, the values are the same."""
    x = images(2, 5, 12, 16)
    ours = max_blur(x, 3, 2)
    close(ours[..., :-1, :-1], kornia.filters.MaxBlurPool2D(3, 2, 2)(x)[..., :-1, :-1])
    blurred = antialiased_cnns.BlurPool(5, filt_size=3, stride=2).double()
    theirs = blurred(F.max_pool2d(x, 2, 1))
    assert theirs.shape == ours.shape
    close(ours[..., 1:-1, 1:-1], theirs[..., 1:-1, 1:-1])
