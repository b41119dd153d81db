"""The third-party CIFAR-10 networks whose checkpoints the tests measure, written from their descriptions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LeNet(nn.Module):
    """Two 5x5 convolutions, each followed by ReLU and max pooling, and three linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.pool1, self.pool2 = nn.MaxPool2d(2), nn.MaxPool2d(2)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool1(F.relu(self.conv1(x)))
        x = self.pool2(F.relu(self.conv2(x))).flatten(1)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


class ClampedVGG(nn.Module):
    """Ten convolutions, each clamped to [0, 127/128]; max pooling before four of them."""

    LAYERS = (
        ("conv1_1", 3, 64, 3),
        ("conv1_2", 64, 32, 1),
        ("conv1_3", 32, 64, 3),
        ("conv2_1", 64, 32, 3),
        ("conv2_2", 32, 64, 1),
        ("conv3_1", 64, 128, 3),
        ("conv3_2", 128, 128, 1),
        ("conv4_1", 128, 64, 3),
        ("conv4_2", 64, 128, 3),
        ("conv5_1", 128, 128, 1),
    )
    POOLED = ("conv2_1", "conv3_1", "conv4_1", "conv5_1")

    def __init__(self) -> None:
        super().__init__()
        for name, inputs, outputs, kernel in self.LAYERS:
            self.add_module(name, nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2))
            if name in self.POOLED:
                self.add_module(f"pool_{name}", nn.MaxPool2d(2))
        self.fc = nn.Linear(512, 10)

    def forward(self, x: Tensor) -> Tensor:
        for name, *_ in self.LAYERS:
            if name in self.POOLED:
                x = self.get_submodule(f"pool_{name}")(x)
            x = self.get_submodule(name)(x).clamp(0, 127 / 128)
        return self.fc(x.flatten(1))


class SameBlock(nn.Module):
    """Residual block whose strided convolution pads at the right and the bottom, as TensorFlow's SAME does."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=0 if stride == 2 else 1)
        self.bn1 = nn.BatchNorm2d(outputs, eps=1e-3)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(outputs, eps=1e-3)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if stride == 2 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (0, 1, 0, 1)) if self.stride == 2 else x
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(padded)))))
        return F.relu(self.shortcut(x) + y)


class TinyResNet(nn.Module):
    """ResNet-8 of 16, 32 and 64 channels with TensorFlow padding."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16, eps=1e-3)
        self.block1 = SameBlock(16, 16, 1)
        self.block2 = SameBlock(16, 32, 2)
        self.block3 = SameBlock(32, 64, 2)
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.block3(self.block2(self.block1(x)))
        return self.fc(torch.flatten(F.avg_pool2d(x, 8), 1))
