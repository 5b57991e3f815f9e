"""Convolutional networks on images: plain ones, and residual ones with norms before (ResNet v2)."""

import flax.linen as nn
import jax

from metaopt import Task
from metaopt.tasks.layers import ACTIVATIONS, NORMS, Conv, normalised
from metaopt.tasks.pixels import Pixels, image_classifier, pixels
from metaopt.tasks.supervised import one_of, positive_all


class _Plain(nn.Module):
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    activation: str
    norm: str | None
    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for channels, strides in zip(self.channels, self.strides, strict=True):
            x = normalised(Conv(channels, (3, 3), strides)(x), self.norm)
            x = ACTIVATIONS[self.activation](x)
        return nn.Dense(self.classes)(x.mean(axis=(-3, -2)))


class _Residual(nn.Module):
    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    activation: str
    norm: str | None
    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        act = ACTIVATIONS[self.activation]
        x = Conv(self.channels[0], (3, 3))(x)
        for stage, (channels, blocks) in enumerate(zip(self.channels, self.blocks, strict=True)):
            for block in range(blocks):
                strides = 2 if stage and not block else 1
                y = act(normalised(x, self.norm))
                if strides > 1 or x.shape[-1] != channels:
                    x = Conv(channels, (1, 1), strides)(y)
                y = act(normalised(Conv(channels, (3, 3), strides)(y), self.norm))
                x = x + Conv(channels, (3, 3))(y)
        x = act(normalised(x, self.norm))
        return nn.Dense(self.classes)(x.mean(axis=(-3, -2)))


def image_cnn(
    *,
    dataset: str = "digits",
    side: int = 8,
    grey: bool = False,
    channels: tuple[int, ...] = (16, 32),
    strides: tuple[int, ...] | None = None,
    activation: str = "relu",
    norm: str | None = None,
    batch_size: int = 128,
) -> Task:
    """3x3 convolutions, the mean over the image, one dense layer: cross-entropy in nats.

    Args:
      dataset, side, grey, batch_size: as for `metaopt.tasks.image_mlp`.
      channels: of the convolutions.
      strides: of each; 2 for the first and 1 for the others if not given.
      activation: ``"relu"``, ``"gelu"``, ``"silu"`` or ``"tanh"``.
      norm: after each convolution: ``"batch"`` (by the statistics of the batch at hand),
        ``"layer"`` (of a pixel's channels), ``"group"`` (of the image) or ``None``.

    Raises:
      ValueError: for a value out of its range.

    Examples:
      >>> params = image_cnn(channels=(4,)).init((), jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(params))
      90
    """
    channels = tuple(channels)
    strides = (2, *[1] * (len(channels) - 1)) if strides is None else tuple(strides)
    positive_all(channels=channels, strides=strides)
    if not channels or len(strides) != len(channels):
        raise ValueError(
            f"channels and strides must hold as many numbers, at least one, got {channels!r} and "
            f"{strides!r}."
        )
    source = _checked(dataset, side, grey, activation, norm)
    return image_classifier(
        source, _Plain(channels, strides, activation, norm, source.classes), batch_size
    )


def resnet(
    *,
    dataset: str = "digits",
    side: int = 8,
    grey: bool = False,
    channels: tuple[int, ...] = (8, 16),
    blocks: tuple[int, ...] | None = None,
    activation: str = "relu",
    norm: str | None = "batch",
    batch_size: int = 128,
) -> Task:
    """A residual network with norms before its convolutions: cross-entropy in nats.

    ResNet v2 (He et al. 2016, arXiv 1603.05027): a 3x3 convolution, stages of blocks of two 3x3
    convolutions each, a stage's first block halving the image from the second stage on, norm,
    activation, mean over the image, a dense layer.

    Args:
      dataset, side, grey, batch_size: as for `metaopt.tasks.image_mlp`.
      channels: of each stage.
      blocks: of each stage; 1 if not given.
      activation, norm: as for `image_cnn`.

    Raises:
      ValueError: for a value out of its range.

    Examples:
      >>> params = resnet(channels=(4,)).init((), jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(params))
      410
    """
    channels = tuple(channels)
    blocks = (1,) * len(channels) if blocks is None else tuple(blocks)
    positive_all(channels=channels, blocks=blocks)
    if not channels or len(blocks) != len(channels):
        raise ValueError(
            f"channels and blocks must hold as many numbers, at least one, got {channels!r} and "
            f"{blocks!r}."
        )
    source = _checked(dataset, side, grey, activation, norm)
    return image_classifier(
        source, _Residual(channels, blocks, activation, norm, source.classes), batch_size
    )


def _checked(dataset: str, side: int, grey: bool, activation: str, norm: str | None) -> Pixels:
    one_of(ACTIVATIONS, activation=activation)
    one_of(NORMS, norm=norm)
    return pixels(dataset, side, grey)
