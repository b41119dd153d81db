"""A user's own operator, in a file of his own."""

import torch

from invariscope.zoo.operators.base import Downsample, pad_to_multiple, phases
from invariscope.zoo.operators.polyphase import phase_taps


class Mine(Downsample):
    """The mean of the stride cell, and its first pixel, mixed."""

    name = "mine"
    strength_argument = "strength"

    def __init__(self, channels, stride=2, padding_mode="zeros", strength: float = 0.5):
        super().__init__(channels, stride, padding_mode)
        self.strength = strength

    def weights(self, like):
        weights = torch.full((1, 1, self.stride**2), self.strength / self.stride**2, dtype=like.dtype)
        weights[..., 0] += 1 - self.strength
        return weights

    def forward(self, x, selection=None):
        x = pad_to_multiple(x, self.stride, self.padding_mode)
        return (phases(x, self.stride) * self.weights(x)[..., None, None]).sum(2)

    def sampling(self, x, outputs=None, selection=None):
        size = (x.shape[-2], x.shape[-1])
        return phase_taps(size, self.stride, self.padding_mode, self.weights(x), outputs)
