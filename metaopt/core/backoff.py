"""When theta makes every particle fail: skip, then go back and take smaller steps.

An estimate that cannot be used moves nothing. After `PATIENCE` of them in a row, theta and the
outer optimizer go back to where the last healthy estimate was made, and updates are halved from
there on; healthy ones double them again over `RECOVERY` steps. After `HALVINGS` the run has
diverged.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from metaopt.core.types import Estimate, PyTree, Theta

PATIENCE = 3
RECOVERY = 100
HALVINGS = 10

DIVERGED = (
    f"no estimate can be used, even after going back {HALVINGS} times and halving the steps. Where "
    "the loss is not finite from outer step 1 on, mend the task or the problem; otherwise choose a "
    "smaller outer.learning_rate or estimator.sigma and another --out. The run so far is saved."
)


class Backoff(NamedTuple):
    """What is remembered of the last healthy estimate.

    Attributes:
      theta: where it was made.
      opt_state: the outer optimizer's state there.
      failures: int32 scalar, estimates in a row that could not be used.
      scale: float32 scalar, by which updates are multiplied.
    """

    theta: Theta
    opt_state: PyTree
    failures: jax.Array
    scale: jax.Array


def init(theta: Theta, opt_state: PyTree) -> Backoff:
    """Nothing has failed yet; arrays of its own, so that a state can be donated."""
    theta, opt_state = jax.tree.map(jnp.copy, (theta, opt_state))
    return Backoff(theta, opt_state, jnp.int32(0), jnp.float32(1.0))


def is_usable(estimate: Estimate, grad_norm: jax.Array) -> jax.Array:
    """Whether an update can be made of an estimate: bool scalar.

    Not of one that is not finite, nor of one that is exactly zero while losses are at the cap: so
    does a diverged population look where the problem has a cap.
    """
    capped = jnp.asarray(estimate.metrics.get("capped_pairs", 0)) > 0
    return jnp.isfinite(grad_norm) & ~((grad_norm == 0) & capped)


def is_healthy(estimate: Estimate, particles: int) -> jax.Array:
    """Whether theta is one to come back to: at least half of the particles were finite.

    In a mixture, of every problem's: its metrics are those under ``NAME/``.
    """
    counts = {name: n for name, n in estimate.metrics.items() if name.endswith("nonfinite_pairs")}
    of_parts = [count for name, count in counts.items() if "/" in name]
    failed = jnp.array([*(of_parts or counts.values()), 0])
    return 2 * failed.max() <= particles


def step(
    before: Backoff,
    old: tuple[Theta, PyTree],
    new: tuple[Theta, PyTree],
    usable: jax.Array,
    healthy: jax.Array,
) -> tuple[tuple[Theta, PyTree], Backoff, dict[str, jax.Array]]:
    """Theta and the outer optimizer's state after an estimate.

    Args:
      before: what was remembered.
      old: both as the estimate found them.
      new: both after an update of it.
      usable: whether an update can be made of the estimate.
      healthy: whether ``old`` is to be remembered.

    Returns:
      Both; what is remembered now; and metrics: ``skipped`` (1 where nothing was updated),
      ``backed_off`` (1 where they went back), ``step_scale``.
    """
    failures = jnp.where(usable, 0, before.failures + 1)
    back = failures >= PATIENCE
    least = 0.5**HALVINGS
    scale = jnp.where(back, jnp.maximum(before.scale / 2, least), before.scale)
    regained = jnp.minimum(scale * 2 ** (1 / RECOVERY), 1.0)
    theta, opt_state = optax.tree.where(usable & healthy, old, (before.theta, before.opt_state))
    moved = optax.tree.where(usable, new, optax.tree.where(back, (theta, opt_state), old))
    after = Backoff(
        theta,
        opt_state,
        failures=jnp.where(back, 0, failures),
        scale=jnp.where(usable & healthy, regained, scale),
    )
    metrics = {
        "skipped": (~usable).astype(jnp.int32),
        "backed_off": back.astype(jnp.int32),
        "step_scale": after.scale,
    }
    return moved, after, metrics


def notice(row: dict[str, Any]) -> str:
    """What a person is told where a row of metrics says that the run went back.

    Examples:
      >>> notice({"step": 40, "step_scale": 0.5})
      'Outer step 40: 3 estimates in a row could not be used; went back to the last healthy ...'
    """
    return (
        f"Outer step {row['step']}: {PATIENCE} estimates in a row could not be used; went "
        f"back to the last healthy theta, updates are scaled by {row['step_scale']:.3g} from there."
    )


def has_diverged(row: dict[str, Any]) -> bool:
    """Whether a row of metrics says that there is nothing left to try."""
    return bool(row["backed_off"]) and row["step_scale"] <= 0.5**HALVINGS
