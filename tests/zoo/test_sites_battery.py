"""Many ways to write the same downsampling: each is one site, with the readings of this project's own operator."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invariscope.collectors.measure.msb import measure_msb
from invariscope.collectors.schema import MSB_READINGS
from invariscope.zoo.operators import build_operator

N, C, SIZE = 8, 3, 16
IMAGES = torch.randn(N, C, SIZE, SIZE, generator=torch.Generator().manual_seed(1))

Function = Callable[[Tensor], Tensor]


class Call(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def learned(spec: str) -> nn.Module:
    torch.manual_seed(0)
    return build_operator(spec, C).eval()


LPS, TIPS = learned("lps"), learned("tips")


def slices(x: Tensor) -> list[Tensor]:
    return [x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]


def split(x: Tensor) -> Tensor:
    """``(N, C, H/2, 2, W/2, 2)``."""
    return x.reshape(*x.shape[:2], x.shape[2] // 2, 2, x.shape[3] // 2, 2)


def stacked(x: Tensor) -> Tensor:
    return torch.stack(slices(x), 1)


def viewed(x: Tensor) -> Tensor:
    return split(x).permute(0, 3, 5, 1, 2, 4).flatten(1, 2)


def norms(phases: Tensor) -> Tensor:
    return phases.flatten(2).norm(dim=2)


def scores(phases: Tensor) -> Tensor:
    """The scores of LPS, as its authors write them: the phases in the batch, two convolutions, a mean."""
    batch = phases.flatten(0, 1)
    for conv in (LPS.conv1, LPS.conv2):
        batch = conv(F.pad(batch, (1, 1, 1, 1), mode="circular"))
        batch = batch.relu() if conv is LPS.conv1 else batch
    return F.adaptive_avg_pool2d(batch, 1).view(*phases.shape[:2], -1).mean(2)


def tau(x: Tensor) -> Tensor:
    """The weights of TIPS from its logits branch, ``(N, C, 4)``."""
    psi = F.relu(F.conv2d(x, TIPS.depthwise.weight, padding=1, groups=C))
    return F.conv2d(F.adaptive_avg_pool2d(psi, 2), TIPS.pointwise.weight, groups=C).flatten(2).softmax(2)


def by_index(make: Function, score: Function, x: Tensor) -> Tensor:
    phases = make(x)
    return phases[torch.arange(len(x)), score(phases).argmax(1)]


def by_gather(make: Function, score: Function, x: Tensor) -> Tensor:
    phases = make(x)
    index = score(phases).argmax(1).view(-1, 1, 1, 1, 1)
    return phases.gather(1, index.expand(-1, 1, *phases.shape[2:])).squeeze(1)


def by_one_hot(make: Function, score: Function, x: Tensor) -> Tensor:
    phases = make(x)
    weights = F.one_hot(score(phases).argmax(1), 4).float()
    return (phases * weights[:, :, None, None, None]).sum(1)


def by_einsum(make: Function, score: Function, x: Tensor) -> Tensor:
    phases = make(x)
    return torch.einsum("nkchw,nk->nchw", phases, F.one_hot(score(phases).argmax(1), 4).float())


def by_loop(score: Function, x: Tensor) -> Tensor:
    kept = []
    for n in range(len(x)):
        phases = torch.stack([x[n, :, i::2, j::2] for i in (0, 1) for j in (0, 1)])
        kept.append(phases[int(score(phases[None])[0].argmax())])
    return torch.stack(kept)


def by_writing(score: Function, x: Tensor) -> Tensor:
    y = torch.empty(len(x), C, SIZE // 2, SIZE // 2)
    chosen = score(stacked(x)).argmax(1)
    for n in range(len(x)):
        k = int(chosen[n])
        y[n] = x[n, :, k // 2 :: 2, k % 2 :: 2]
    return y


def by_mask(x: Tensor) -> Tensor:
    chosen = norms(stacked(x)).argmax(1).view(-1, 1, 1, 1)
    a, b, c, d = slices(x)
    return torch.where(chosen == 0, a, torch.where(chosen == 1, b, torch.where(chosen == 2, c, d)))


def mixed_one_by_one(x: Tensor) -> Tensor:
    weights = tau(x)
    return sum(weights[:, :, k, None, None] * phase for k, phase in enumerate(slices(x)))


def mixed_by_groups(x: Tensor) -> Tensor:
    kernels = tau(x).reshape(N * C, 1, 2, 2)
    return F.conv2d(x.reshape(1, N * C, SIZE, SIZE), kernels, stride=2, groups=N * C).view(N, C, SIZE // 2, SIZE // 2)


def maximum_of_phases(x: Tensor) -> Tensor:
    a, b, c, d = slices(x)
    return torch.maximum(torch.maximum(a, b), torch.maximum(c, d))


class Forward(torch.autograd.Function):
    """A maximum without the derivative of one."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 2)


def maximum_by_loop(x: Tensor) -> Tensor:
    y = x.new_zeros(len(x), C, 8, 8)
    for i in range(8):
        for j in range(8):
            y[:, :, i, j] = x[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].amax((2, 3))
    return y


def integral_image(x: Tensor) -> Tensor:
    total = F.pad(x.cumsum(2).cumsum(3), (1, 0, 1, 0))
    lines = total[:, :, 2::2] - total[:, :, :-2:2]
    return (lines[..., 2::2] - lines[..., :-2:2]) / 4


def positions_by_argmax(x: Tensor) -> Tensor:
    windows = split(x).permute(0, 1, 2, 4, 3, 5).flatten(4)
    return windows.gather(4, windows.argmax(4, keepdim=True)).squeeze(4)


def one_axis_after_the_other(x: Tensor) -> Tensor:
    lines = torch.maximum(x[:, :, ::2], x[:, :, 1::2])
    return torch.maximum(lines[..., ::2], lines[..., 1::2])


def means_of_lines(x: Tensor) -> Tensor:
    lines = (x[:, :, ::2] + x[:, :, 1::2]) / 2
    return (lines[..., ::2] + lines[..., 1::2]) / 2


def channels_last(x: Tensor) -> Tensor:
    last = x.permute(0, 2, 3, 1)
    return last.reshape(N, SIZE // 2, 2, SIZE // 2, 2, C).amax((2, 4)).permute(0, 3, 1, 2)


EVEN = torch.arange(0, SIZE, 2)
HALF = torch.arange(SIZE) // 2
AVERAGE = torch.zeros(SIZE // 2, SIZE)
AVERAGE[EVEN // 2, EVEN] = AVERAGE[EVEN // 2, EVEN + 1] = 0.5
PICK = torch.eye(SIZE)[::2]
BINOMIAL = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16
LINE = torch.tensor([0.25, 0.5, 0.25])


def haar(x: Tensor) -> Tensor:
    """As wavelet networks write it: four bands, of which the first averages; the layer keeps them all."""
    upper, lower = x[:, :, ::2] / 2, x[:, :, 1::2] / 2
    a, b, c, d = upper[..., ::2], lower[..., ::2], upper[..., 1::2], lower[..., 1::2]
    return torch.cat([a + b + c + d, c + d - a - b, b + d - a - c, a + d - b - c], 1)


def blur_of(weight: Tensor) -> Function:
    return lambda x: F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), weight, stride=2, groups=C)


def frozen_blur(x: Tensor) -> Tensor:
    conv = nn.Conv2d(C, C, 3, 2, groups=C, bias=False).requires_grad_(False)
    conv.weight.copy_(BINOMIAL.expand(C, 1, 3, 3))
    return conv(F.pad(x, (1, 1, 1, 1), mode="reflect"))


def separable_blur(x: Tensor) -> Tensor:
    x = F.pad(x, (1, 1, 1, 1), mode="reflect")
    rows = sum(LINE[k] * x[:, :, k : k + SIZE] for k in range(3))
    return sum(LINE[k] * rows[..., k : k + SIZE] for k in range(3))[:, :, ::2, ::2]


def blur_by_matrices(x: Tensor) -> Tensor:
    line = torch.eye(SIZE)
    padded = torch.cat([line[1:2], line, line[-2:-1]])
    matrix = sum(LINE[k] * padded[k : k + SIZE] for k in range(3))[::2]
    return matrix @ x @ matrix.T


WAYS: list[tuple[str, str, Function]] = [
    ("view amax", "max", lambda x: x.view(8, 3, 8, 2, 8, 2).amax((3, 5))),
    ("view max max", "max", lambda x: split(x).max(5)[0].max(3).values),
    ("unfold amax", "max", lambda x: x.unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2))),
    ("F.unfold max", "max", lambda x: F.unfold(x, 2, stride=2).view(N, C, 4, 8, 8).max(2)[0]),
    ("maximum of four phases", "max", maximum_of_phases),
    ("maximum by axes", "max", one_axis_after_the_other),
    ("stack amax", "max", lambda x: stacked(x).amax(1)),
    ("argmax gather", "max", positions_by_argmax),
    ("topk", "max", lambda x: viewed(x).topk(1, 1)[0].squeeze(1)),
    ("sort", "max", lambda x: viewed(x).sort(1)[0][:, -1]),
    ("channels last", "max", channels_last),
    ("minus the minimum", "max", lambda x: -split(-x).amin((3, 5))),
    ("3 x 3 by unfold", "max(kernel=3)",
     lambda x: F.pad(x, (1, 1, 1, 1), value=-1e9).unfold(2, 3, 2).unfold(3, 3, 2).amax((4, 5))),
    ("max pooling in 3 d", "max", lambda x: F.max_pool3d(x, (1, 2, 2))),
    ("a function of one's own", "max", lambda x: Forward.apply(x)),
    ("pixel by pixel", "max", maximum_by_loop),
    ("scatter_reduce", "max", lambda x: x.new_full((N, C, 64), -9.0).scatter_reduce(
        2, (8 * HALF[:, None] + HALF).flatten().expand(N, C, -1), x.flatten(2), "amax").view(N, C, 8, 8)),
    ("lines", "max", lambda x: F.max_pool1d(F.max_pool1d(x.flatten(0, 2), 2).view(N, C, SIZE, 8).mT.flatten(0, 2), 2)
     .view(N, C, 8, 8).mT),
    ("an image at a time", "max", lambda x: torch.stack([F.max_pool2d(image, 2) for image in x])),
    ("channels in the batch", "max", lambda x: F.max_pool2d(x.flatten(0, 1)[:, None], 2).view(N, C, 8, 8)),
    ("batch last", "max", lambda x: x.permute(2, 3, 0, 1).reshape(8, 2, 8, 2, N, C).amax((1, 3)).permute(2, 3, 0, 1)),
    ("view mean", "avg", lambda x: x.view(8, 3, 8, 2, 8, 2).mean((3, 5))),
    ("sum of phases", "avg", lambda x: sum(slices(x)) / 4),
    ("matrices", "avg", lambda x: AVERAGE @ x @ AVERAGE.T),
    ("einsum", "avg", lambda x: torch.einsum("nchw,ih,jw->ncij", x, AVERAGE, AVERAGE)),
    ("unfold mean", "avg", lambda x: x.unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2))),
    ("means of lines", "avg", means_of_lines),
    ("one channel at a time", "avg",
     lambda x: F.conv2d(x.reshape(-1, 1, SIZE, SIZE), torch.full((1, 1, 2, 2), 0.25), stride=2).view(N, C, 8, 8)),
    ("Haar", "avg", haar),
    ("sums of an integral image", "avg", integral_image),
    ("index_add", "avg", lambda x: x.new_zeros(N, C, 8, 8).index_add(
        3, HALF, x.new_zeros(N, C, 8, SIZE).index_add(2, HALF, x)) / 4),
    ("tensordot", "avg", lambda x: torch.tensordot(torch.tensordot(x, AVERAGE, ([2], [1])), AVERAGE, ([2], [1]))),
    ("by area", "avg", lambda x: F.interpolate(x, scale_factor=0.5, mode="area")),
    ("buffer", "blur(3, padding_mode=reflect)", blur_of(BINOMIAL.expand(C, 1, 3, 3))),
    ("frozen parameter", "blur(3, padding_mode=reflect)",
     blur_of(nn.Parameter(BINOMIAL.repeat(C, 1, 1, 1), requires_grad=False))),
    ("frozen convolution", "blur(3, padding_mode=reflect)", frozen_blur),
    ("sums of moved maps", "blur(3, padding_mode=reflect)", separable_blur),
    ("blur by matrices", "blur(3, padding_mode=reflect)", blur_by_matrices),
    ("two slices", "subsample", lambda x: x[:, :, ::2][:, :, :, ::2]),
    ("index_select", "subsample", lambda x: x.index_select(2, EVEN).index_select(3, EVEN)),
    ("list index", "subsample", lambda x: x[:, :, EVEN.tolist()][..., EVEN.tolist()]),
    ("mesh index", "subsample", lambda x: x[:, :, EVEN[:, None], EVEN]),
    ("gather", "subsample", lambda x: x.gather(2, EVEN.view(1, 1, -1, 1).expand(N, C, -1, SIZE))[..., EVEN]),
    ("view select", "subsample", lambda x: split(x)[:, :, :, 0, :, 0]),
    ("complex slices", "subsample", lambda x: torch.complex(x, -x)[:, :, ::2, ::2].real),
    ("as_strided", "subsample", lambda x: x.as_strided((N, C, 8, 8), (C * 256, 256, 32, 2))),
    ("take", "subsample", lambda x: x.take(torch.arange(x.numel()).view_as(x)[:, :, ::2, ::2])),
    ("picking matrices", "subsample", lambda x: PICK @ x @ PICK.T),
    ("APS by index", "aps", partial(by_index, stacked, norms)),
    ("APS by index of a view", "aps", partial(by_index, viewed, norms)),
    ("APS by gather", "aps", partial(by_gather, stacked, norms)),
    ("APS by weights", "aps", partial(by_one_hot, viewed, norms)),
    ("APS by einsum", "aps", partial(by_einsum, stacked, norms)),
    ("APS by a loop", "aps", partial(by_loop, norms)),
    ("APS by writing", "aps", partial(by_writing, norms)),
    ("APS by masks", "aps", by_mask),
    ("LPS by index", "lps", partial(by_index, stacked, scores)),
    ("LPS by weights", "lps", partial(by_one_hot, stacked, scores)),
    ("LPS by gather", "lps", partial(by_gather, viewed, scores)),
    ("TIPS stacked", "tips", lambda x: (torch.stack(slices(x), 2) * tau(x)[..., None, None]).sum(2)),
    ("TIPS one by one", "tips", mixed_one_by_one),
    ("TIPS by einsum", "tips", lambda x: torch.einsum("nchiwj,ncij->nchw", split(x), tau(x).view(N, C, 2, 2))),
    ("TIPS by groups", "tips", mixed_by_groups),
    ("SoftPool", "soft(beta=1)", lambda x: F.avg_pool2d(x.exp() * x, 2) / F.avg_pool2d(x.exp(), 2)),
]  # fmt: skip


def expected(spec: str) -> list[float]:
    operator = {"lps": LPS, "tips": TIPS}.get(spec)
    if operator is None:
        name, _, rest = spec.partition("(")
        operator = (
            build_operator(spec, C)
            if "=reflect" not in rest
            else build_operator(f"{name}(3)", C, padding_mode="reflect")
        )
    (row,) = measure_msb(operator, IMAGES).to_dict("records")
    return [row[name] for name in ("n_windows", "flat_fraction", *MSB_READINGS)]


KINDS = {"aps": "phase", "lps": "phase", "tips": "mixture", "soft": "mixture"}
"""What operators are called that are known by their behaviour alone; the others have one kind however written."""


def test_the_battery_is_wide() -> None:
    assert len(WAYS) >= 40
    assert len({name for name, _, _ in WAYS}) == len(WAYS)


@pytest.mark.parametrize(("spec", "function"), [way[1:] for way in WAYS], ids=[way[0] for way in WAYS])
def test_every_way_reads_as_the_operator(spec: str, function: Function) -> None:
    model = nn.Sequential(Call(function), nn.Conv2d(function(IMAGES).shape[1], 2, 3, padding=1))
    frame = measure_msb(model, IMAGES, batch_size=N)
    (row,) = [row for row in frame.to_dict("records") if not str(row["reason"] or "").startswith("side branch")]
    assert row["reason"] is None or row["reason"] != row["reason"]
    assert (row["input_size"], row["output_size"], row["stride"]) == ("16x16", "8x8", "2x2")
    name = spec.partition("(")[0]
    assert row["site_kind"] == KINDS.get(name, name)
    found = [row[name] for name in ("n_windows", "flat_fraction", *MSB_READINGS)]
    literal = 2 + MSB_READINGS.index("msb")
    wanted = expected(spec)
    if spec == "avg" or spec.startswith("blur"):
        # A rounded mean of distinct values is their maximum by chance alone.
        found[literal] = wanted[literal] = 0
    assert found == pytest.approx(wanted, abs=1e-6)
