"""The residual networks for ImageNet of He et al. 2016, with any downsampling operator and three kinds of stem."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from invariscope.base.errors import ModelError
from invariscope.base.names import unknown
from invariscope.zoo.architectures.levels import Level, chosen
from invariscope.zoo.architectures.parts import check_counts, conv
from invariscope.zoo.architectures.residual import BasicBlock, Bottleneck, Residual
from invariscope.zoo.operators import STRIDED, Operatorlike, OperatorSpec, build_operator, read_downsampling
from invariscope.zoo.operators.base import Downsample

BLOCKS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
}
"""Depth -> kind of block and blocks per stage."""

STEMS = ("strided", "stride1", "operator")
"""How a network starts; see :class:`Trunk`."""

SUBSAMPLING_STAGES = {32: 3, 16: 2, 8: 1}
"""Total stride with a stem of stride 4 -> stages that subsample; the later ones are dilated."""


class Trunk(nn.Module):
    """The convolutional part of ResNet-``depth``, which :class:`ResNet` and :class:`ResNetEncoder` run.

    Args:
        operator: ``strided`` for the published network: 3x3 max pooling of stride 2, strided convolutions.
        width: channels of the stem and of the first stage's 3x3 convolutions; 64 as published.
        stem: ``strided``, a 7x7 convolution of stride 2 as published, and the operator in place of the max pooling;
            ``operator``, the 7x7 convolution at stride 1 and the operator twice, so that every subsampling is an
            operator; ``stride1``, a 3x3 convolution at stride 1 and no pooling, for small images.
        output_stride: 32; or 16 or 8, where the last stages are dilated instead of subsampled (with the stem of
            ``stride1`` the total stride is a quarter of it). Yu et al., Dilated residual networks, 2017.

    Raises:
        OperatorError: for an operator specification that names none, or a padding mode that is unknown.
        ModelError: for another depth, stem or output stride, or a number below 1.
    """

    def __init__(
        self,
        depth: int,
        operator: Operatorlike = "max",
        padding_mode: str = "zeros",
        in_channels: int = 3,
        width: int = 64,
        stem: str = "strided",
        output_stride: int = 32,
    ) -> None:
        super().__init__()
        check_counts(in_channels=in_channels, width=width)
        if depth not in BLOCKS:
            raise ModelError(f"depth is {depth}, and must be one of {', '.join(map(str, BLOCKS))}")
        if stem not in STEMS:
            raise ModelError(unknown("stem", str(stem), STEMS))
        if stem == "operator" and operator == STRIDED:
            raise ModelError("stem is operator, and the operator is strided, which is none: take stem=strided")
        if output_stride not in SUBSAMPLING_STAGES:
            known = ", ".join(map(str, SUBSAMPLING_STAGES))
            raise ModelError(f"output_stride is {output_stride!r}, and must be one of {known}")
        self.stem = stem
        self.subsampling = SUBSAMPLING_STAGES[output_stride]
        spec = read_downsampling(operator)
        self._add_stem(spec, padding_mode, in_channels, width)
        self._add_stages(depth, spec, padding_mode, width)

    def _add_stem(self, operator: OperatorSpec | str, padding_mode: str, in_channels: int, width: int) -> None:
        kernel, stride = {"strided": (7, 2), "operator": (7, 1), "stride1": (3, 1)}[self.stem]
        self.conv1 = conv(in_channels, width, kernel, stride=stride, padding_mode=padding_mode)
        self.bn1 = nn.BatchNorm2d(width)
        self.stem_down: nn.Module | None = None
        self.maxpool: nn.Module | None = None
        if self.stem == "operator":
            self.stem_down = build_operator(operator, width, 2, padding_mode)
        if operator == STRIDED and self.stem == "strided":
            self.maxpool = nn.MaxPool2d(3, 2, 1)
        elif self.stem != "stride1":
            self.maxpool = build_operator(operator, width, 2, padding_mode)
        self.stem_widths = {"strided": [in_channels, width], "operator": [width, width], "stride1": []}[self.stem]

    def _add_stages(self, depth: int, operator: OperatorSpec | str, padding_mode: str, width: int) -> None:
        block, counts = BLOCKS[depth]
        channels, dilation = width, 1
        self.stage_widths = [(width << stage) * block.expansion for stage in range(4)]
        for stage, count in enumerate(counts):
            subsamples, dilates = 0 < stage <= self.subsampling, stage > self.subsampling
            before, dilation = dilation, 2 * dilation if dilates else dilation
            blocks = nn.Sequential()
            for number in range(count):
                stride = 2 if number == 0 and subsamples else 1
                dilations = (before if number == 0 else dilation, dilation)
                blocks.append(block(channels, width << stage, stride, operator, padding_mode, dilations))
                channels = self.stage_widths[stage]
            self.add_module(f"layer{stage + 1}", blocks)

    @property
    def stages(self) -> list[tuple[nn.Module, nn.Module | None]]:
        """The four stages, each with the operator that stands in its first block (before it, for the first stage)."""
        layers = [self.get_submodule(f"layer{number}") for number in range(1, 5)]
        firsts = [layer.get_submodule("0") for layer in layers[1:]]
        downs = [first.down if isinstance(first, Residual) else None for first in firsts]
        return list(zip(layers, [self.maxpool, *downs], strict=True))

    def levels(self, x: Tensor) -> list[Level]:
        """A map per resolution, the last one of it, for ``(N, in_channels, H, W)``.

        The first is the image itself where the stem is ``strided``, the stem's map where it is ``operator``, and the
        first stage's where it is ``stride1``.
        """
        y = F.relu(self.bn1(self.conv1(x)))
        levels = {"strided": [Level(x), Level(y)], "operator": [Level(y)], "stride1": []}[self.stem]
        if self.stem_down is not None:
            y = self.stem_down(y)
            levels.append(Level(y, chosen(self.stem_down)))
        if self.maxpool is not None:
            y = self.maxpool(y)
        for number, (stage, down) in enumerate(self.stages):
            y = stage(y)
            if number <= self.subsampling:
                levels.append(Level(y, chosen(down)))
            else:
                levels[-1] = Level(y, levels[-1].selection)
        return levels


class ResNet(Trunk):
    """ResNet-``depth``: ``(N, in_channels, H, W) -> (N, classes)`` logits, for any size. See :class:`Trunk`.

    ``operator="strided"`` is the published network, whose parameters carry the names of torchvision's and timm's. An
    operator stands before the second 3x3 convolution of a basic block and before the last 1x1 convolution of a
    bottleneck; on the shortcut it comes before the 1x1 convolution. With circular padding, the stems ``stride1`` and
    ``operator``, and sizes that the total stride divides, the logits of aps, lps and ``tips(pool=phase, hard=true)``
    are exactly invariant to circular shifts (in evaluation).

    Raises:
        OperatorError: for an operator specification that names none, or a padding mode that is unknown.
        ModelError: for another depth, stem or output stride, or a number below 1.
    """

    def __init__(
        self,
        depth: int,
        operator: Operatorlike = "max",
        padding_mode: str = "zeros",
        in_channels: int = 3,
        classes: int = 10,
        width: int = 64,
        stem: str = "strided",
        output_stride: int = 32,
    ) -> None:
        super().__init__(depth, operator, padding_mode, in_channels, width, stem, output_stride)
        check_counts(classes=classes)
        self.fc = nn.Linear(self.stage_widths[-1], classes)
        nn.init.kaiming_normal_(self.fc.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.levels(x)[-1].features.mean((2, 3)))


class ResNetEncoder(Trunk):
    """The trunk as an encoder: it gives the :class:`Level` of every resolution, see :meth:`Trunk.levels`."""

    @property
    def widths(self) -> list[int]:
        """Channels of each level."""
        stages = self.stage_widths[: self.subsampling + 1]
        return [*self.stem_widths, *stages[:-1], self.stage_widths[-1]]

    @property
    def operators(self) -> list[Downsample | None]:
        """What made each level but the first: an operator, or something strided (None)."""
        stem: list[nn.Module | None] = {
            "strided": [None, self.maxpool],
            "operator": [self.stem_down, self.maxpool],
        }.get(self.stem, [])
        makers = stem + [down for _, down in self.stages[1 : self.subsampling + 1]]
        return [maker if isinstance(maker, Downsample) else None for maker in makers]

    @property
    def first_stage(self) -> int:
        """The level that holds the first stage's map."""
        return len(self.stem_widths)

    @property
    def decoder_widths(self) -> list[int]:
        """Channels that a decoder works with at each level: those of the level's 3x3 convolutions."""
        width = self.conv1.out_channels
        stem = {"strided": [max(width // 2, 1), width], "operator": [width, width]}.get(self.stem, [])
        return stem + [width << stage for stage in range(self.subsampling + 1)]

    def forward(self, x: Tensor) -> list[Level]:
        return self.levels(x)


def resnet_encoder(
    name: str,
    operator: Operatorlike,
    padding_mode: str,
    in_channels: int,
    width: int,
    stem: str,
    output_stride: int = 32,
) -> ResNetEncoder:
    """The ResNet of a name, without its head.

    Raises:
        ModelError: for a name that is not resnet18, 34, 50 or 101.
    """
    names = [f"resnet{depth}" for depth in BLOCKS]
    if name not in names:
        raise ModelError(unknown("encoder", str(name), names))
    depth = int(name.removeprefix("resnet"))
    return ResNetEncoder(depth, operator, padding_mode, in_channels, width, stem, output_stride)


resnet18 = partial(ResNet, 18)
resnet34 = partial(ResNet, 34)
resnet50 = partial(ResNet, 50)
resnet101 = partial(ResNet, 101)
