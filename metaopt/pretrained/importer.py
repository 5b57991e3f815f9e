"""Public checkpoints of learned optimizers, as Flax serialises them: msgpack, never pickle."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from metaopt.config.components import call, make
from metaopt.config.registry import find
from metaopt.config.schema import Component
from metaopt.core.errors import UserError
from metaopt.core.files import make_empty_folder
from metaopt.core.theta import unflatten_theta
from metaopt.core.types import LearnedOptimizer, Theta
from metaopt.pretrained.artefact import write

OLD_NAMEDTUPLE = {"name", "fields", "values"}
"""Keys under which Flax before 0.7 serialised a named tuple."""


def import_file(path: str | Path, optimizer: Component, out: str | Path) -> Theta:
    """Reads a public checkpoint and writes it as a trained optimizer, for `metaopt.load`.

    Args:
      path: a file of `flax.serialization.to_bytes`: nested dicts of arrays.
      optimizer: which of the catalogue's it is, with the arguments that give its sizes.
      out: the directory to write, which must not exist or be empty.

    Returns:
      Theta.

    Raises:
      UserError: for a file that cannot be read or is something else, an unknown optimizer, missing,
        extra or misshapen entries, or a directory in use.
    """
    theta = import_theta(make("learned optimizer", optimizer), read_msgpack(path))
    out = Path(out)
    make_empty_folder(out)
    try:
        write(out, optimizer, theta, imported_from=Path(path).name)
    except OSError as error:
        raise UserError(
            f"{out} cannot be written ({error.strerror}): choose another --out."
        ) from error
    return theta


def import_theta(
    optimizer: str | LearnedOptimizer, flat: Mapping[str, jax.Array | np.ndarray], **arguments: Any
) -> Theta:
    """Theta from the paths of public checkpoints, converted to ours.

    Args:
      optimizer: a learned optimizer, or a name in the catalogue; ``learnable_`` in front of a name
        is allowed, as other libraries have it. Its ``public_paths`` say where each of their leaves
        belongs; other paths are taken as our own.
      flat: ``{path: array}``.
      **arguments: those of a named optimizer that are not its defaults.

    Returns:
      Theta, as the optimizer's ``init`` makes it, with these values.

    Raises:
      UserError: for an unknown optimizer, or naming every missing, extra or misshapen entry.

    Examples:
      >>> import_theta("learnable_sgd", {"log_lr": np.float32(-3.0)})
      {'log_lr': Array(-3., dtype=float32)}
    """
    if isinstance(optimizer, str):
        name = optimizer.removeprefix("learnable_")
        factory = find("learned optimizer", name)
        made: LearnedOptimizer = call(factory, f"learned optimizer {name!r}", arguments)
        return import_theta(made, flat)
    ours = {optimizer.public_paths.get(path, path): array for path, array in flat.items()}
    return unflatten_theta(ours, jax.eval_shape(optimizer.init, jax.random.key(0)))


def read_msgpack(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a file of `flax.serialization.to_bytes`: ``{"outer/inner/leaf": array}``.

    Raises:
      UserError: where it cannot be read or is something else.
    """
    import flax.serialization  # here, so that `import metaopt` stays light

    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        tree = flax.serialization.msgpack_restore(content)
    except Exception as error:  # each damage has its own kind
        raise UserError(f"{path} is not a Flax checkpoint in msgpack: {error!r}.") from error
    flat = dict(_leaves(tree, ""))
    strange = [where or "the whole" for where, leaf in flat.items() if not _is_number(leaf)]
    if strange or not flat:
        raise UserError(
            f"{path} does not hold nested dicts of arrays: {', '.join(strange) or 'nothing in it'}."
        )
    return {where: np.asarray(leaf) for where, leaf in flat.items()}


def _leaves(tree: Any, where: str):
    if not isinstance(tree, dict):
        yield where, tree
        return
    if tree.keys() == OLD_NAMEDTUPLE:
        fields, values = tree["fields"], tree["values"]
        tree = {name: values.get(index) for index, name in fields.items()}
    for name, branch in tree.items():
        yield from _leaves(branch, f"{where}/{name}" if where else str(name))


def _is_number(leaf: Any) -> bool:
    return np.issubdtype(np.asarray(leaf).dtype, np.number)
