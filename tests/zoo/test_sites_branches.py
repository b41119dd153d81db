"""Networks with side branches: the sites are those of the main path; poolings of gates, pyramids and heads are none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invariscope.collectors.measure.msb import measure_msb
from invariscope.zoo.sites import find_sites

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def conv(before: int, after: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, kernel, stride, kernel // 2)


class Net(nn.Module):
    """A stem, a pooling, a branch between the two halves of the network, and a pooling."""

    def __init__(self, branch: nn.Module, width: int = 8) -> None:
        super().__init__()
        self.stem, self.first, self.branch = conv(3, 8), nn.MaxPool2d(2), branch
        self.last, self.second, self.head = conv(width, 8), nn.AvgPool2d(2), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.branch(self.first(self.stem(x).relu()))
        return self.head(self.second(self.last(x).relu()).mean((2, 3)))


class Gate(nn.Module):
    """``x * gate(x)``."""

    def __init__(self, *layers: nn.Module, join: Callable[[Tensor, Tensor], Tensor] = torch.mul) -> None:
        super().__init__()
        self.layers, self.join = nn.Sequential(*layers), join

    def forward(self, x: Tensor) -> Tensor:
        return self.join(x, self.layers(x))


class Upsample(nn.Module):
    """Back to 16 x 16."""

    def __init__(self, mode: str = "nearest") -> None:
        super().__init__()
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, size=(16, 16), mode=self.mode)


class Flat(nn.Module):
    """A vector per image as a map of one pixel."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :, None, None]


class Pyramid(nn.Module):
    """Contexts of several sizes, joined with the map: pyramid pooling."""

    def __init__(self, *pools: nn.Module, add: bool = False) -> None:
        super().__init__()
        self.pools, self.add = nn.ModuleList(pools), add
        self.convs = nn.ModuleList(nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU()) for _ in pools)

    def forward(self, x: Tensor) -> Tensor:
        both = zip(self.convs, self.pools, strict=True)
        parts = [F.interpolate(conv(pool(x)), size=x.shape[2:], mode="bilinear") for conv, pool in both]
        return sum(parts, x) if self.add else torch.cat([x, *parts], 1)


class Strips(nn.Module):
    """Coordinate attention: a gate from the means of rows and one from those of columns."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.columns = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.rows(x.mean(3, keepdim=True)).sigmoid() * self.columns(x.mean(2, keepdim=True)).sigmoid()


class SpatialGate(nn.Module):
    """CBAM: a gate from mean and maximum over channels, and one from those over the map."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp, self.conv = nn.Conv2d(8, 8, 1), conv(2, 1, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = x * (self.mlp(F.adaptive_avg_pool2d(x, 1)) + self.mlp(F.adaptive_max_pool2d(x, 1))).sigmoid()
        return x * self.conv(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)).sigmoid()


class Reduced(nn.Module):
    """Attention whose keys and values are pooled: queries keep the map."""

    def forward(self, x: Tensor) -> Tensor:
        small = x[:, :, :8, :8].flatten(2).transpose(1, 2)
        weights = (x.flatten(2).transpose(1, 2) @ small.transpose(1, 2)).softmax(2)
        return (weights @ small).transpose(1, 2).reshape(x.shape)


class Dynamic(nn.Module):
    """A convolution whose filters come of a pooled map, one for each image and channel."""

    def forward(self, x: Tensor) -> Tensor:
        filters = F.adaptive_avg_pool2d(x, 3).softmax(1).reshape(-1, 1, 3, 3)
        return F.conv2d(x.reshape(1, -1, 16, 16), filters, padding=1, groups=len(filters)).view_as(x)


class Phases(nn.Module):
    """A mixture of phases whose weights come of a pooled map, kept at the size by upsampling."""

    def forward(self, x: Tensor) -> Tensor:
        weights = F.adaptive_avg_pool2d(x.relu(), 2).flatten(2).softmax(2)
        return x * weights.mean(2)[..., None, None]


class Heads(nn.Module):
    """Another head beside the main one, with a pooling of its own."""

    def __init__(self, mapping: bool = False) -> None:
        super().__init__()
        self.net, self.mapping = Net(nn.Identity()), mapping
        self.pool, self.aside = nn.AvgPool2d(4), nn.Linear(3 * 64, 5)

    def forward(self, x: Tensor) -> object:
        main, aside = self.net(x), self.aside(self.pool(x).flatten(1))
        return {"aux": aside, "logits": main} if self.mapping else (main, aside)


class SpatialPyramid(nn.Module):
    """Poolings of the last map side by side, flattened into the logits: spatial pyramid pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.linear = nn.MaxPool2d(2), nn.AvgPool2d(2), nn.Linear(8 * (16 + 4 + 1), 5)
        self.stem, self.last = conv(3, 8), conv(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.last(self.first(self.stem(x))).relu())
        return self.linear(torch.cat([F.adaptive_max_pool2d(x, size).flatten(1) for size in (4, 2, 1)], 1))


class TopDown(nn.Module):
    """A feature pyramid: finer maps get what coarser ones know; all of them are returned."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.last, self.second = conv(3, 8), nn.MaxPool2d(2), conv(8, 8), nn.AvgPool2d(2)
        self.lateral, self.top = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        fine = self.first(self.stem(x).relu())
        coarse = self.top(self.second(self.last(fine).relu()))
        return {"0": self.lateral(fine) + F.interpolate(coarse, scale_factor=2.0), "1": coarse}


class UNet(nn.Module):
    """The way down of an encoder and decoder is its main path, though it comes back upsampled."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.last, self.second = conv(3, 8), nn.MaxPool2d(2), conv(8, 8), nn.AvgPool2d(2)
        self.deep, self.up, self.out = conv(8, 8), conv(16, 8), conv(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        large = self.stem(x).relu()
        middle = self.last(self.first(large)).relu()
        small = self.deep(self.second(middle)).relu()
        middle = self.up(torch.cat([middle, F.interpolate(small, scale_factor=2.0)], 1)).relu()
        return self.out(torch.cat([large, F.interpolate(middle, scale_factor=2.0)], 1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "squeeze-excite": lambda: Net(Gate(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 2, 1), nn.ReLU(), nn.Conv2d(2, 8, 1),
                                       nn.Sigmoid())),
    "squeeze-excite by means": lambda: Net(Gate(Flat(), nn.Conv2d(8 * 256, 8, 1), nn.Hardsigmoid())),
    "squeeze in two steps": lambda: Net(Gate(nn.AvgPool2d(4), nn.Conv2d(8, 8, 1), nn.AdaptiveAvgPool2d(1),
                                             nn.Sigmoid())),
    "gate from a strided convolution": lambda: Net(Gate(conv(8, 8, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Sigmoid())),
    "gate upsampled": lambda: Net(Gate(nn.AvgPool2d(2), conv(8, 8), nn.Sigmoid(), Upsample())),
    "gate upsampled before": lambda: Net(Gate(nn.MaxPool2d(2), conv(8, 8), Upsample("bilinear"), nn.Sigmoid())),
    "gate by softmax": lambda: Net(Gate(nn.AdaptiveAvgPool2d(2), conv(8, 8), nn.Softmax(1), Upsample())),
    "residual gate": lambda: Net(Gate(nn.AvgPool2d(2), conv(8, 8), nn.Sigmoid(), Upsample(),
                                      join=lambda x, gate: x + x * gate)),
    "context added to every pixel": lambda: Net(Gate(nn.AvgPool2d(4), nn.Conv2d(8, 8, 4), join=torch.add)),
    "coordinate attention": lambda: Net(Strips()),
    "CBAM": lambda: Net(SpatialGate()),
    "pyramid": lambda: Net(Pyramid(*(nn.AdaptiveAvgPool2d(size) for size in (1, 2, 4, 8))), 40),
    "pyramid of maxima": lambda: Net(Pyramid(nn.MaxPool2d(2), nn.MaxPool2d(4)), 24),
    "pyramid added": lambda: Net(Pyramid(nn.AvgPool2d(4), nn.AdaptiveAvgPool2d(2), add=True)),
    "uneven pyramid": lambda: Net(Pyramid(nn.AdaptiveAvgPool2d(3), nn.AdaptiveAvgPool2d(6)), 24),
    "attention": lambda: Net(Reduced()),
    "dynamic filters": lambda: Net(Dynamic()),
    "weights from a pooled map": lambda: Net(Phases()),
    "another head": Heads,
    "another head, by name": lambda: Heads(mapping=True),
    "spatial pyramid": SpatialPyramid,
    "feature pyramid": TopDown,
    "U-Net": UNet,
}  # fmt: skip


@pytest.mark.parametrize("network", NETWORKS)
def test_the_main_path_alone_is_measured(network: str) -> None:
    torch.manual_seed(0)
    model = NETWORKS[network]().eval()
    sites = find_sites(model, IMAGES)
    main = [site for site in sites if not (site.reason or "").startswith("side branch")]
    assert [site.name.removeprefix("net.") for site in main] == ["first", "second"]
    assert [site.reason for site in main] == [None, None]
    frame = measure_msb(model, IMAGES, batch_size=2)
    measured = frame[frame["msb_corrected"].notna()]
    assert [name.removeprefix("net.") for name in measured["site"]] == ["first", "second"]
    assert frame["reason"].notna().sum() == len(sites) - 2


def test_a_side_branch_changes_no_reading() -> None:
    torch.manual_seed(0)
    plain = Net(nn.Identity()).eval()
    gated = Net(Gate(nn.AvgPool2d(2), nn.Conv2d(8, 8, 1), nn.Sigmoid(), Upsample())).eval()
    for name in ("stem", "last", "head"):
        getattr(gated, name).load_state_dict(getattr(plain, name).state_dict())
    columns = ["msb", "msb_all", "msb_weight", "msb_top", "msb_corrected", "flat_fraction"]
    one, other = (measure_msb(model, IMAGES).set_index("site")[columns] for model in (plain, gated))
    assert other.loc["branch.layers.0"].drop("flat_fraction").isna().all()
    assert one.loc["first"].equals(other.loc["first"])
