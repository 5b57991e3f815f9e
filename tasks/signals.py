"""Ten classes of short signals, made on the spot: what tells an MLP from a convolution in seconds.

By the recipe of MNIST-1D (Greydanus and Kobak 2020, arXiv 2011.14439): a template of 12 points a
class is padded, scaled, moved, sheared and blurred with noise. The templates and ranges are
theirs; the numbers are drawn by NumPy from a seed of ours, so that it is not the published file.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from metaopt import PyTree, Task
from metaopt.tasks.fresh import fresh_parameters
from metaopt.tasks.layers import ACTIVATIONS, Conv, DenseNet
from metaopt.tasks.supervised import classifier, one_of, positive, positive_all

TEMPLATES = (
    (5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5),
    (5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5),
    (5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5),
    (5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5),
    (5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5),
    (5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5),
    (5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5),
    (5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5),
)
LENGTH = 40
PADDING = (36, 60)
SCALE, SHEAR, SHIFT = 0.4, 0.75, 48
SMOOTH_NOISE, WHITE_NOISE = 0.25, 0.02


def signals(*, rows: int = 5000, seed: int = 42) -> PyTree:
    """The signals: ``{split: {"signal": float32 [n, 40], "label": int32 [n]}}``.

    As many of each class; row i is in ``train`` where i mod 5 is 0, 1 or 2, in ``valid`` where it
    is 3 and in ``test`` where it is 4.

    Args:
      rows: in all.
      seed: of everything random in them.
    """
    rng = np.random.default_rng(seed)
    label = (np.arange(rows) // 5 % 10).astype(np.int32)
    at = np.array(TEMPLATES, np.float64)
    at = (at - at.mean(axis=1, keepdims=True)) / at.std(axis=1, keepdims=True)
    at = (at - at[:, :1]) / 6
    signal = np.stack([_signal(at[k], rng) for k in label]).astype(np.float32)
    part = np.arange(rows) % 5
    of = {"train": part < 3, "valid": part == 3, "test": part == 4}
    return {split: {"signal": signal[at], "label": label[at]} for split, at in of.items()}


def _signal(template: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    whole = len(template) + PADDING[1]
    padded = np.concatenate([template, np.zeros(rng.integers(*PADDING, endpoint=True))])
    x = _stretched(padded, whole) * (1 - SCALE * (rng.random() - 0.5))
    x = np.roll(x, rng.integers(SHIFT))
    window = np.exp(-0.5 * (np.arange(-8, 9) / 2) ** 2)
    noise = np.convolve(rng.standard_normal(whole + 16), window / window.sum(), "valid")
    x = x + SMOOTH_NOISE * noise + WHITE_NOISE * rng.standard_normal(whole)
    x = _stretched(x, LENGTH)
    return x - SHEAR * (rng.random() - 0.5) * np.linspace(-0.5, 0.5, LENGTH)


def _stretched(x: np.ndarray, length: int) -> np.ndarray:
    return np.interp(np.linspace(0, len(x) - 1, length), np.arange(len(x)), x)


class _Convolutions(nn.Module):
    channels: tuple[int, ...]
    activation: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x[..., None]
        for channels in self.channels:
            x = ACTIVATIONS[self.activation](Conv(channels, (5,), strides=2)(x))
        return nn.Dense(10)(x.reshape(*x.shape[:-2], -1))


def signal_mlp(
    *, hidden: tuple[int, ...] = (64,), activation: str = "relu", batch_size: int = 128
) -> Task:
    """An MLP on signals of 40 points in 10 classes, made on the spot: cross-entropy in nats.

    The signals and their splits: `metaopt.tasks.signals.signals`.

    Args:
      hidden: widths of the hidden layers.
      activation: ``"relu"``, ``"gelu"``, ``"silu"`` or ``"tanh"``.
      batch_size: signals a batch.

    Raises:
      ValueError: for a value out of its range.

    Examples:
      >>> params = signal_mlp(hidden=(8,)).init((), jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(params))
      418
    """
    hidden = tuple(hidden)
    positive_all(hidden=hidden)
    one_of(ACTIVATIONS, activation=activation)
    return _classifier(DenseNet((*hidden, 10), activation), batch_size)


def signal_cnn(
    *, channels: tuple[int, ...] = (16, 16), activation: str = "relu", batch_size: int = 128
) -> Task:
    """Convolutions of 5 points and stride 2 on the signals of `signal_mlp`: cross-entropy in nats.

    Args:
      channels: of the convolutions.
      activation: ``"relu"``, ``"gelu"``, ``"silu"`` or ``"tanh"``.
      batch_size: signals a batch.

    Raises:
      ValueError: for a value out of its range.

    Examples:
      >>> params = signal_cnn(channels=(4,)).init((), jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(params))
      834
    """
    channels = tuple(channels)
    positive_all(channels=channels)
    one_of(ACTIVATIONS, activation=activation)
    return _classifier(_Convolutions(channels, activation), batch_size)


def _classifier(model: nn.Module, batch_size: int) -> Task:
    positive(batch_size=batch_size)

    def predict(params, batch, key) -> Any:
        return model.apply({"params": params}, jnp.asarray(batch["signal"]))

    init = fresh_parameters(model, LENGTH)
    return classifier(signals, init, predict, classes=10, batch_size=batch_size)
