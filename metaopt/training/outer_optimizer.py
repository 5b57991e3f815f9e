"""The outer optimizer: what moves theta along an estimate."""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax

from metaopt.config.registry import choose
from metaopt.config.schema import OuterConfig
from metaopt.core.errors import UserError
from metaopt.core.theta import theta_paths
from metaopt.core.types import Theta, UnrolledProblem

OUTER_OPTIMIZERS = {
    "adam": optax.adam,
    "adamw": optax.adamw,
    "rmsprop": optax.rmsprop,
    "sgd": optax.sgd,
}


def outer_optimizer(config: OuterConfig) -> optax.GradientTransformation:
    """Clipping by global norm, then the optimizer with its schedule.

    Raises:
      UserError: for a value out of its range, or an unknown optimizer.

    Examples:
      >>> outer_optimizer(OuterConfig("sgd")).init(jnp.zeros(2)) is not None
      True
    """
    optimizer = choose("outer optimizer", config.optimizer, OUTER_OPTIMIZERS)
    at_least(0, "outer.warmup_steps", config.warmup_steps)
    if not config.learning_rate > 0:
        raise UserError(f"outer.learning_rate must be above 0, got {config.learning_rate}.")
    if config.clip_norm is not None and not config.clip_norm > 0:
        raise UserError(f"outer.clip_norm must be above 0 or None, got {config.clip_norm}.")
    peak, warmup = config.learning_rate, config.warmup_steps
    if config.decay_steps is None:
        after = optax.constant_schedule(peak)
    elif config.decay_steps > warmup:
        after = optax.cosine_decay_schedule(peak, config.decay_steps - warmup, alpha=0.01)
    else:
        raise UserError(
            f"outer.decay_steps must be above warmup_steps={warmup}, got {config.decay_steps}."
        )
    schedule = optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup])
    clip = (
        optax.identity()
        if config.clip_norm is None
        else optax.clip_by_global_norm(config.clip_norm)
    )
    if config.eps_root is not None:
        optimizer = _with_eps_root(optimizer, config)
    if config.drop_step is None:
        return optax.chain(clip, optimizer(schedule))
    drop_step = config.drop_step
    at_least(1, "outer.drop_step", drop_step)
    dropped = lambda step: schedule(step) * jnp.where(step < drop_step, 1.0, 0.1)
    return optax.chain(clip, optimizer(dropped))


def _with_eps_root(
    optimizer: Callable[..., optax.GradientTransformation], config: OuterConfig
) -> Callable[..., optax.GradientTransformation]:
    if config.optimizer not in ("adam", "adamw"):
        raise UserError(
            f"outer.eps_root is for adam and adamw, got outer.optimizer={config.optimizer}."
        )
    if config.eps_root is None or config.eps_root < 0:
        raise UserError(f"outer.eps_root must be at least 0 or None, got {config.eps_root}.")
    return partial(optimizer, eps_root=config.eps_root)


def frozen(
    tx: optax.GradientTransformation, parts: tuple[str, ...], problem: UnrolledProblem
) -> optax.GradientTransformation:
    """The outer optimizer on what is not frozen; the rest neither moves nor counts in clipping.

    Args:
      tx: the outer optimizer.
      parts: paths in theta, such as ``"rule"`` or ``"scheduler/start=0.5"``.
      problem: whose theta it is.

    Raises:
      UserError: for an unknown part, or where nothing is left to train.
    """
    parts = tuple(held(parts))
    theta = jax.eval_shape(problem.init_theta, jax.random.key(0))
    # "a/b/c" has the prefixes "a", "a/b" and "a/b/c".
    paths = {path: path.split("/") for path in theta_paths(theta)}
    prefixes = {"/".join(p[:n]): None for p in paths.values() for n in range(1, len(p) + 1)}
    for prefix in parts:
        choose("part of theta in outer.frozen", prefix, prefixes)
    still = [any(_is_within(path, prefix) for prefix in parts) for path in paths]
    if all(still):
        raise UserError(f"outer.frozen must leave a part of theta to train, got {parts!r}.")
    labels = ["frozen" if is_still else "learned" for is_still in still]
    return optax.multi_transform(
        {"learned": tx, "frozen": optax.set_to_zero()},
        jax.tree.unflatten(jax.tree.structure(theta), labels),
    )


def held(parts: tuple[str, ...]) -> dict[str, float | None]:
    """Frozen parts of theta, and the number that each of them is held at, if it is said.

    Raises:
      UserError: for what is no finite number.

    Examples:
      >>> held(("rule", "scheduler/start=0.5"))
      {'rule': None, 'scheduler/start': 0.5}
    """
    found: dict[str, float | None] = {}
    for part in parts:
        path, is_said, number = part.partition("=")
        try:
            at = float(number) if is_said else None
        except ValueError:
            at = math.nan
        if at is not None and not math.isfinite(at):
            raise UserError(f"outer.frozen takes PATH or PATH=NUMBER, finite, got {part!r}.")
        found[path] = at
    return found


def starting_at(
    init_theta: Callable[[jax.Array], Theta], parts: tuple[str, ...]
) -> Callable[[jax.Array], Theta]:
    """Theta's start with the frozen parts at the numbers that they are held at.

    Examples:
      >>> start = starting_at(lambda key: {"rule": jnp.ones(2), "rate": jnp.ones(())}, ("rate=3",))
      >>> float(start(jax.random.key(0))["rate"])
      3.0
    """
    numbers = {path: at for path, at in held(parts).items() if at is not None}

    def init(key: jax.Array) -> Theta:
        theta = init_theta(key)
        leaves, structure = jax.tree.flatten(theta)
        for i, path in enumerate(theta_paths(theta)):
            for prefix, number in numbers.items():
                if _is_within(path, prefix):
                    leaves[i] = jnp.full_like(leaves[i], number)
        return jax.tree.unflatten(structure, leaves)

    return init if numbers else init_theta


def _is_within(path: str, prefix: str) -> bool:
    return f"{path}/".startswith(f"{prefix}/")


def of_each(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimizer of several thetas, axis 0 of every leaf, each as if it were alone.

    Examples:
      >>> clip = of_each(optax.clip_by_global_norm(1.0))
      >>> thetas = jnp.zeros((2, 1))
      >>> updates, _ = clip.update(jnp.array([[5.0], [0.5]]), clip.init(thetas), thetas)
      >>> updates.ravel().tolist()
      [1.0, 0.5]
    """
    tx = optax.with_extra_args_support(tx)

    def update(updates, state, params=None, **extra):
        return jax.vmap(lambda *each: tx.update(*each, **extra))(updates, state, params)

    return optax.GradientTransformationExtraArgs(jax.vmap(tx.init), update)


def at_least(least: int, name: str, value: int) -> None:
    """Raises a `UserError` that names what is below its least value."""
    if value < least:
        raise UserError(f"{name} must be at least {least}, got {value}.")
