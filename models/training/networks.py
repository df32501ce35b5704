"""The networks: plain 3x3 convolutions, small enough for a CPU."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def _standardised(image: Tensor) -> Tensor:
    """Each image with mean 0.5 and a deviation of 1/4, which lie in the range of images of 0-1."""
    centred = image - image.mean(dim=(2, 3), keepdim=True)
    return 0.5 + 0.25 * centred / (centred.square().mean(dim=(2, 3), keepdim=True) + 1e-4).sqrt()


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

    It sees every image twice, as it is and standardised: densities where they are true, contrasts where they are not.

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
            nn.Conv2d(2, widths[0], 6, 2, 2, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)
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

    def down(self, image: Tensor) -> list[Tensor]:
        """Feature maps on the way down, the first at half the image's size."""
        features = self.stem(torch.cat([image, _standardised(image)], dim=1))
        maps = []
        for stage in self.encoder:
            features = stage(features)
            maps.append(features)
        return maps

    def blocks(self, image: Tensor) -> Tensor:
        """Logits of 2x2 blocks of pixels, at half the image's size: four channels for each class."""
        maps = self.down(image)
        features = maps[-1]
        for level in range(len(self.encoder) - 2, -1, -1):
            features = functional.interpolate(self.lateral[level](features), scale_factor=2.0, mode="nearest")
            features = self.decoder[level](features + maps[level])
        logits: Tensor = self.head(features)
        return logits

    def forward(self, image: Tensor) -> Tensor:
        return functional.pixel_shuffle(self.blocks(image), 2)


def cut_at(network: UNet, threshold: float) -> None:
    """Shift a network's logits so that its foreground has a probability of one half where it had a threshold."""
    network.state_dict()["head.bias"][:4] += math.log(threshold / (1.0 - threshold))


class OneForeground(nn.Module):
    """A segmentation network whose foreground classes are taken together: one logit for each pixel.

    Computed on blocks, and of operations that ONNX Runtime vectorises: its ReduceLogSumExp takes a fifth of the
    network's time, its DepthToSpace of three classes a tenth.

    Parameters
    ----------
    segmenter: UNet
    """

    def __init__(self, segmenter: UNet) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, image: Tensor) -> Tensor:
        background, one, other = self.segmenter.blocks(image).split(4, dim=1)
        larger = torch.maximum(one, other)
        foreground = larger + ((one - larger).exp() + (other - larger).exp()).log()
        return functional.pixel_shuffle(foreground - background, 2)


class Committee(nn.Module):
    """Networks that answer together: the mean of their logits, and after it the answer of each.

    Parameters
    ----------
    networks: Sequence[nn.Module]
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        answers = [network(image) for network in self.networks]
        return torch.stack(answers).mean(dim=0), *answers


def pool(maps: Sequence[Tensor]) -> Tensor:
    """Mean, deviation and maximum of every channel of every map, shape (images, features)."""
    pooled = []
    for map_ in maps:
        mean = map_.mean(dim=(2, 3))
        square = (map_ * map_).mean(dim=(2, 3))
        pooled += [mean, (square - mean * mean).clamp(min=1e-6).sqrt(), map_.amax(dim=(2, 3))]
    return torch.cat(pooled, dim=1)


class Classifier(nn.Module):
    """One linear unit on the pooled maps of a segmentation network.

    Parameters
    ----------
    features: int
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("spread", torch.ones(features))
        self.linear = nn.Linear(features, 1)

    def forward(self, pooled: Tensor) -> Tensor:
        logits: Tensor = self.linear((pooled - self.centre) / self.spread)
        return logits


class Both(nn.Module):
    """Images, and behind them their mirror images."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([image, image.flip(3)])


class Classifiers(nn.Module):
    """The mean answer of some classifiers for images and mirror images of `Both`.

    Parameters
    ----------
    classifiers: Sequence[Classifier]
        Of as many networks, whose maps come one network after the other.
    """

    def __init__(self, classifiers: Sequence[Classifier]) -> None:
        super().__init__()
        self.classifiers = nn.ModuleList(classifiers)

    def forward(self, *maps: Tensor) -> Tensor:
        each = len(maps) // len(self.classifiers)
        logits = [
            classifier(pool(maps[number * each : (number + 1) * each]))
            for number, classifier in enumerate(self.classifiers)
        ]
        plain, mirrored = torch.stack(logits).mean(dim=0).chunk(2)
        return (plain + mirrored) / 2
