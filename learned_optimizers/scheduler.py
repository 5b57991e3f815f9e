"""What VeLO and Celo share: an LSTM that sees how far training is and how the loss goes.

Its inputs are the fraction of training done, tanh(10 (fraction - c)) for nine c, and nine features
of the loss, from ten moving averages with half-lives from 10 steps to the horizon (arXiv
2211.09760, appendix). Its outputs mix the rule's weights and scale the step.
"""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from metaopt.learned_optimizers.features import ema, kernel_init
from metaopt.learned_optimizers.recurrent import Carry, LSTMCell, zero_start

FRACTIONS = (0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1)
SHORTEST_HALF_LIFE = 10.0
AVERAGES = 10


class LossBuffer(NamedTuple):
    """Moving averages of the loss.

    Attributes:
      means: float32 ``[10]``, not bias-corrected.
      minima: float32 ``[10]``, the least that each corrected mean has been.
      decays: float32 ``[10]``; kept, since the features hang on their last bits in the first steps.
    """

    means: jax.Array
    minima: jax.Array
    decays: jax.Array


def fraction_features(fraction: jax.Array) -> jax.Array:
    """tanh(10 (fraction - c)): float32 ``[9]``.

    Examples:
      >>> fraction_features(jnp.float32(0.5)).shape
      (9,)
    """
    return jnp.tanh(10 * (fraction - jnp.array(FRACTIONS, jnp.float32)))


def init_losses(longest: jax.Array | float) -> LossBuffer:
    """The buffer before the first loss.

    Args:
      longest: the longest half-life in steps: the horizon.
    """
    half_lives = jnp.logspace(jnp.log10(SHORTEST_HALF_LIFE), jnp.log10(longest), AVERAGES)
    return LossBuffer(jnp.zeros(AVERAGES), jnp.full(AVERAGES, jnp.inf), jnp.exp(-1 / half_lives))


def update_losses(
    buffer: LossBuffer, loss: jax.Array, step: jax.Array
) -> tuple[LossBuffer, jax.Array]:
    """Takes one more loss, clipped at twice the largest corrected mean.

    One that is not finite changes no corrected mean.

    Args:
      buffer: before it.
      loss: float32 scalar.
      step: int32 scalar, updates done.

    Returns:
      The buffer after it, and features ``[9]``: where each mean is between its minimum and the next
      longer mean, less 1, clipped to ±1; zeros in the first two steps.

    Examples:
      >>> _, features = update_losses(init_losses(100.0), jnp.float32(2.0), jnp.int32(0))
      >>> features.tolist()
      [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    t = step.astype(jnp.float32)
    correction = 1 - buffer.decays ** (t + 1)
    highest = jnp.max(buffer.means / correction)
    is_known = highest != 0
    clipped = jnp.where(is_known, jnp.minimum(loss, 2 * jnp.abs(highest)), loss)
    means = ema(buffer.means, clipped, buffer.decays)
    # The first that says something, but not at step 0: as if all before it had been the same.
    means = jnp.where(is_known | (step == 0), means, clipped * correction)
    # Not finite: as if it had been what each mean is already.
    is_finite = jnp.isfinite(loss)
    before = 1 - buffer.decays**t
    unchanged = buffer.means * (correction / jnp.where(step == 0, 1.0, before))
    means = jnp.where(is_finite, means, unchanged)
    corrected = means / correction
    minima = jnp.where(is_finite, jnp.minimum(buffer.minima, corrected), buffer.minima)

    span = jnp.maximum(1e-8, corrected[1:] - minima[:-1])
    features = jnp.clip((corrected[:-1] - minima[:-1]) / span - 1, -1, 1)
    return LossBuffer(means, minima, buffer.decays), jnp.where(step < 2, 0.0, features)


class Scheduler(nn.Module):
    """``(carry, inputs [tensors, F]) -> (carry, controls [tensors, K], size [tensors])``.

    Each tensor's inputs are mixed with the others', by a maximum over tensors, before the LSTM.

    Attributes:
      width: of the LSTM.
      controls: K, how many sets of weights there are to mix.
    """

    width: int
    controls: int

    @nn.compact
    def __call__(self, carry: Carry, inputs: jax.Array) -> tuple[Carry, jax.Array, jax.Array]:
        dense = partial(nn.Dense, kernel_init=kernel_init)
        dense(self.width, name="unused")(inputs)  # public checkpoints have this layer
        pooled = nn.relu(dense(self.width, name="pooled")(inputs)).max(axis=0, keepdims=True)
        mixed = dense(self.width, name="own")(inputs) + pooled
        carry = LSTMCell(self.width, name="lstm")(carry, mixed)
        controls = dense(self.controls, name="controls")(carry.hidden)
        return carry, controls, dense(1, name="step_size")(carry.hidden)[:, 0]


def init_scheduler(key: jax.Array, scheduler: Scheduler, features: int) -> dict:
    """A scheduler's meta-parameters: ``start`` (the LSTM's initial state) and ``network``."""
    start = zero_start(scheduler.width)
    network = scheduler.init(key, Carry(**start), jnp.zeros((1, features)))["params"]
    return {"start": start, "network": network}


def scheduler_paths() -> dict[str, str]:
    """Where public checkpoints keep a scheduler: ``{their path: our path}``."""
    layers = {
        "linear": "unused",
        "linear_1": "pooled",
        "linear_2": "own",
        "rnn/linear": "lstm/gates",
        "rnn_to_controls": "controls",
        "step_size": "step_size",
    }
    paths = {
        f"rnn_params/{theirs}/{public}": f"scheduler/network/{ours}/{leaf}"
        for theirs, ours in layers.items()
        for public, leaf in (("w", "kernel"), ("b", "bias"))
    }
    start = {f"lstm_init_state/{leaf}": f"scheduler/start/{leaf}" for leaf in ("hidden", "cell")}
    return paths | start


def validate_sizes(**sizes: int) -> None:
    """Raises ValueError where a size is not a positive integer."""
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"{name} must be a positive integer, got {size!r}.")
