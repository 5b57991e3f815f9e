"""Images as patches: vision transformers and MLP-mixers."""

import flax.linen as nn
import jax

from metaopt import Task
from metaopt.tasks.attention import Mixer, Positions, Transformer
from metaopt.tasks.pixels import Pixels, image_classifier, pixels
from metaopt.tasks.supervised import positive


class _Patches(nn.Module):
    """Square patches, each a vector: ``[n, side, side, channels]`` to ``[n, patches, width]``."""

    patch: int
    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        n, side, _, channels = x.shape
        count = side // self.patch
        x = x.reshape(n, count, self.patch, count, self.patch, channels).swapaxes(2, 3)
        return nn.Dense(self.width)(x.reshape(n, count**2, -1))


class _VisionTransformer(nn.Module):
    patch: int
    width: int
    hidden: int
    heads: int
    layers: int
    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = Positions()(_Patches(self.patch, self.width)(x))
        x = Transformer(self.layers, self.heads, self.hidden)(x)
        return nn.Dense(self.classes, name="head")(x.mean(axis=1))


class _MixerModel(nn.Module):
    patch: int
    width: int
    token_hidden: int
    channel_hidden: int
    layers: int
    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = _Patches(self.patch, self.width)(x)
        x = Mixer(self.layers, self.token_hidden, self.channel_hidden)(x)
        return nn.Dense(self.classes, name="head")(x.mean(axis=1))


def vit(
    *,
    dataset: str = "digits",
    side: int = 8,
    grey: bool = False,
    patch: int = 2,
    width: int = 32,
    hidden: int | None = None,
    heads: int = 4,
    layers: int = 2,
    batch_size: int = 64,
) -> Task:
    """A vision transformer on patches of images: cross-entropy in nats.

    Learned positions, norms before attention and feedforward, the mean over patches (Dosovitskiy et
    al. 2020, arXiv 2010.11929, without the class token).

    Args:
      dataset, side, grey, batch_size: as for `metaopt.tasks.image_mlp`.
      patch: height and width of a patch; divides ``side``.
      width: of the model, a multiple of ``heads``.
      hidden: of the feedforward part; four times ``width`` if not given.
      heads: of attention; they divide ``width``.
      layers: blocks.

    Raises:
      ValueError: for a value out of its range.

    Examples:
      >>> params = vit(width=8, heads=2, layers=1).init((), jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(params))
      1146
    """
    hidden = 4 * width if hidden is None else hidden
    positive(patch=patch, width=width, hidden=hidden, heads=heads, layers=layers)
    if width % heads:
        raise ValueError(f"width must be a multiple of heads={heads}, got {width!r}.")
    source = _checked(dataset, side, grey, patch)
    model = _VisionTransformer(patch, width, hidden, heads, layers, source.classes)
    return image_classifier(source, model, batch_size)


def mlp_mixer(
    *,
    dataset: str = "digits",
    side: int = 8,
    grey: bool = False,
    patch: int = 2,
    width: int = 32,
    token_hidden: int = 16,
    channel_hidden: int = 128,
    layers: int = 2,
    batch_size: int = 64,
) -> Task:
    """An MLP-mixer on patches of images: cross-entropy in nats.

    Dense layers over patches and over channels in turn (Tolstikhin et al. 2021, arXiv 2105.01601).

    Args:
      dataset, side, grey, batch_size: as for `metaopt.tasks.image_mlp`.
      patch: height and width of a patch; divides ``side``.
      width: channels of a patch.
      token_hidden, channel_hidden: widths within the two parts of a block.
      layers: blocks.

    Raises:
      ValueError: for a value out of its range.

    Examples:
      >>> params = mlp_mixer(width=8, layers=1, channel_hidden=8).init((), jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(params))
      866
    """
    positive(patch=patch, width=width, layers=layers)
    positive(token_hidden=token_hidden, channel_hidden=channel_hidden)
    source = _checked(dataset, side, grey, patch)
    model = _MixerModel(patch, width, token_hidden, channel_hidden, layers, source.classes)
    return image_classifier(source, model, batch_size)


def _checked(dataset: str, side: int, grey: bool, patch: int) -> Pixels:
    source = pixels(dataset, side, grey)
    if side % patch:
        raise ValueError(f"patch must divide side={side}, got {patch!r}.")
    return source
