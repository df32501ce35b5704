"""The networks: plain 3x3 convolutions, small enough for a CPU."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class _Residual(nn.Module):
    """Two convolutions around which the input passes unchanged."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _convolution(width, width)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, features: Tensor) -> Tensor:
        return functional.relu(features + self.second(self.first(features)))


class UNet(nn.Module):
    """A U-Net whose first level works on 2x2 blocks of pixels, which costs a quarter and loses nothing.

    Parameters
    ----------
    classes: int
        Channels of the output (logits, at the size of the input).
    widths: Sequence[int]
        Channels at 1/2, 1/4, 1/8, ... of the input's size.
    """

    def __init__(self, classes: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, widths[0], 6, 2, 2, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)
        )
        self.encoder = nn.ModuleList(
            [nn.Identity()]
            + [
                nn.Sequential(_convolution(shallow, deep, stride=2), _Residual(deep))
                for shallow, deep in pairwise(widths)
            ]
        )
        self.lateral = nn.ModuleList(nn.Conv2d(deep, shallow, 1) for shallow, deep in pairwise(widths))
        self.decoder = nn.ModuleList(_convolution(width, width) for width in widths[:-1])
        self.head = nn.Conv2d(widths[0], 4 * classes, 3, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        features = self.stem(image)
        levels = []
        for stage in self.encoder:
            features = stage(features)
            levels.append(features)
        for level in range(len(levels) - 2, -1, -1):
            features = functional.interpolate(self.lateral[level](features), scale_factor=2.0, mode="nearest")
            features = self.decoder[level](features + levels[level])
        return functional.pixel_shuffle(self.head(features), 2)
