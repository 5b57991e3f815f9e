"""Trained optimizers on disk: safetensors and JSON, never pickle."""

import json
from pathlib import Path
from typing import Any

import jax
import optax
from safetensors import SafetensorError
from safetensors.numpy import load, save

import metaopt.config as configuration
from metaopt.errors import UserError
from metaopt.experiment import make
from metaopt.rundir import RunDirectory, write_atomically
from metaopt.theta import flatten_theta, unflatten_theta
from metaopt.types import LearnedOptimizer, Theta

SCHEMA = 1


def save_run(
    directory: RunDirectory, config: configuration.Config, theta: Theta, totals: dict[str, Any]
) -> None:
    """Writes theta; a learned optimizer into ``optimizer/``, with what `load_optimizer` reads."""
    if config.problem.name != "training":
        write_atomically(directory.path / "theta.safetensors", save(flatten_theta(theta)))
        return
    directory.optimizer.mkdir(exist_ok=True)
    trained_on = {"task": config.task.name, "num_steps": config.estimator.horizon} | totals
    write(directory.optimizer, config.optimizer, theta, trained_on=trained_on)


def write(directory: Path, optimizer: configuration.Component, theta: Theta, **facts: Any) -> None:
    """Writes what `read` reads: ``config.json``, with any further facts, and ``theta.safetensors``.

    Args:
      directory: one that exists.
      optimizer: theta's, as in the catalogue.
      theta: the meta-parameters.
      **facts: what else is to be said of it, for people; JSON.
    """
    chosen = {"name": optimizer.name, "args": list(optimizer.args)}
    description = {"schema": SCHEMA, "optimizer": chosen} | facts
    write_atomically(directory / "config.json", json.dumps(description, indent=2) + "\n")
    write_atomically(directory / "theta.safetensors", save(flatten_theta(theta)))


def read(path: str | Path) -> tuple[LearnedOptimizer, Theta]:
    """A trained optimizer and its theta.

    Args:
      path: a run directory, or a directory with ``config.json`` and ``theta.safetensors``.

    Raises:
      UserError: where there is none, or it is damaged or of a newer schema.
    """
    path = Path(path)
    inside = path / "optimizer"
    directory = inside if inside.is_dir() else path
    if not (directory / "theta.safetensors").is_file():
        raise UserError(
            f"{path} holds no trained optimizer: name a directory that `metaopt train` has made."
        )
    try:
        description = json.loads((directory / "config.json").read_text())
        schema, chosen = description["schema"], description["optimizer"]
        component = configuration.Component(chosen["name"], tuple(chosen["args"]))
        flat = load((directory / "theta.safetensors").read_bytes())
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(f"the trained optimizer in {directory} is damaged: {error!r}.") from error
    if schema != SCHEMA:
        raise UserError(
            f"{directory} has schema {schema}, this version reads {SCHEMA}: upgrade metaopt."
        )
    optimizer = make("learned optimizer", component)
    theta = unflatten_theta(flat, jax.eval_shape(optimizer.init, jax.random.key(0)))
    return optimizer, theta


def load_optimizer(
    path: str | Path, num_steps: int | None = None
) -> optax.GradientTransformationExtraArgs:
    """A trained optimizer as an optax transformation; public as `metaopt.load`.

    Args:
      path: a run directory, or a directory with ``config.json`` and ``theta.safetensors``.
      num_steps: how many steps it is going to be used for.

    Raises:
      UserError: where there is none, or it is damaged or of a newer schema.
    """
    optimizer, theta = read(path)
    return optimizer.optimizer(theta, num_steps)
