"""The files of a trained optimizer: safetensors, JSON and npz, never pickle, with their SHA-256.

``theta.safetensors`` says in its header whose theta it is, ``config.json`` says everything else,
and ``SHA256SUMS``, in the form of `sha256sum`, holds the digest of every file.
"""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from metaopt.config.schema import Component
from metaopt.core.errors import UserError
from metaopt.core.files import json_text, parse_json, read_text, sha256, write_atomically
from metaopt.core.theta import flatten_theta
from metaopt.core.types import Theta

SCHEMA = 2
"""Of these files. Schema 1 had no header, digests or trained range; it is still read."""

THETA, CONFIG, SUMS = "theta.safetensors", "config.json", "SHA256SUMS"


class Artefact(NamedTuple):
    """What is on disk.

    Attributes:
      optimizer: theta's, as in the catalogue.
      flat: theta by path.
      description: all of ``config.json``.
      trained_range: ``num_steps`` (shortest and longest) and ``largest_tensor`` (in elements) of
        meta-training; ``None`` where that is not known.
    """

    optimizer: Component
    flat: dict[str, np.ndarray]
    description: dict[str, Any]
    trained_range: tuple[int, int, int] | None


def write(
    directory: Path,
    optimizer: Component,
    theta: Theta,
    *,
    files: Mapping[str, str | bytes] | None = None,
    **facts: Any,
) -> None:
    """Writes what `read_artefact` reads.

    Args:
      directory: one that exists.
      optimizer: theta's, as in the catalogue.
      theta: the meta-parameters.
      files: what else belongs to it, by name.
      **facts: what ``config.json`` is to say beside; JSON.
    """
    described = {"schema": SCHEMA, "optimizer": _chosen(optimizer)}
    written: dict[str, str | bytes] = {
        # One entry, since safetensors keeps several in no fixed order.
        THETA: save(flatten_theta(theta), {"metaopt": json.dumps(described)}),
        CONFIG: json_text(described | facts, indent=2),
    }
    written |= files or {}
    sums = []
    for name, content in written.items():
        write_atomically(directory / name, content)
        sums.append(f"{sha256(directory / name)}  {name}\n")
    write_atomically(directory / SUMS, "".join(sums))


def read_artefact(directory: Path) -> Artefact:
    """Reads and checks a trained optimizer's files.

    Args:
      directory: one that holds ``theta.safetensors``.

    Raises:
      UserError: where a file is missing, damaged or changed, of a newer schema, or theta is another
        optimizer's.
    """
    try:
        description = parse_json(read_text(directory / CONFIG))
        if "problem" in description and "schema" not in description:
            raise no_optimizer(directory, description["problem"]["name"])
        schema, chosen = description["schema"], description["optimizer"]
        if schema > SCHEMA:
            raise UserError(
                f"{directory} has schema {schema}, this version reads {SCHEMA} and older: upgrade "
                "metaopt."
            )
        if schema > 1 or (directory / SUMS).exists():
            _check_sums(directory)
        component = Component(chosen["name"], tuple(chosen["args"]))
        flat = load((directory / THETA).read_bytes())
        with safe_open(directory / THETA, "numpy") as file:
            header = parse_json((file.metadata() or {}).get("metaopt", "null"))
        if schema == 1 and header is not None:
            raise _damaged(directory, f"{CONFIG} has schema 1, {THETA} a later one")
        trained = description.get("trained_range")
        if trained is not None:
            trained = (*map(int, trained["num_steps"]), int(trained["largest_tensor"]))
        of = chosen if schema == 1 else header["optimizer"]
    except UserError:
        raise
    except Exception as error:  # each damage has its own kind
        raise _damaged(directory, _fault(error)) from error
    if of != chosen:
        raise UserError(
            f"{directory / THETA} is of {_shown(of)}, but {CONFIG} says {_shown(chosen)}: put the "
            "two files back together, or export the run again."
        )
    require_finite(flat, directory / THETA)
    if schema == 1:
        warnings.warn(
            f"{directory} is of metaopt 0.1 and has no digests: damage to it would not be noticed.",
            stacklevel=2,
        )
    return Artefact(component, flat, description, trained)


def require_finite(flat: Mapping[str, np.ndarray], file: Path) -> None:
    """Refuses a theta that is not finite: whatever it would train would not be, either.

    Raises:
      UserError: naming the leaves.
    """
    lost = [path for path, leaf in flat.items() if not np.isfinite(leaf.astype(np.float64)).all()]
    if lost:
        raise UserError(
            f"theta in {file} is not finite ({', '.join(lost)}): its training diverged; train it "
            "again with a smaller learning rate or sigma."
        )


def no_optimizer(directory: Path, problem: str) -> UserError:
    """What is said to those who want the optimizer of a run that has none."""
    return UserError(
        f"{directory} has no optimizer: its problem is {problem!r}. metaopt.load_theta reads what "
        "it learned; where that is an optimizer of your own, metaopt.train with the same objects "
        "returns the run, and its load() knows them."
    )


def _chosen(optimizer: Component) -> dict[str, Any]:
    return {"name": optimizer.name, "args": list(optimizer.args)}


def _shown(chosen: dict[str, Any]) -> str:
    return f"{chosen['name']}({', '.join(chosen['args'])})"


def _check_sums(directory: Path) -> None:
    """Compares every file with its digest.

    Raises:
      UserError: naming the files that are not as they were written.
    """
    sums = {}
    for line in read_text(directory / SUMS).splitlines():
        digest, name = line.split("  ", 1)
        if Path(name).name != name:
            raise _damaged(directory, f"{SUMS} names {name!r}, which is elsewhere")
        sums[name] = digest
    # A file that is not listed could have been swapped unseen.
    unlisted = {THETA, CONFIG} - sums.keys()
    if changed := sorted(
        unlisted | {name for name, digest in sums.items() if sha256(directory / name) != digest}
    ):
        raise _damaged(directory, f"{', '.join(changed)} not as {SUMS} has it")


def _fault(error: Exception) -> str:
    """What reading met, in words."""
    match error:
        case OSError(filename=name) if name is not None:
            return f"{Path(name).name}: {error.strerror}"
        case OSError():
            return str(error)
        case SafetensorError():
            return f"{THETA} is not one of safetensors"
        case ValueError():  # of JSON and of UTF-8
            return f"{CONFIG} or {SUMS} is not readable text"
        case _:
            return f"{CONFIG} does not say what it should"


def _damaged(directory: Path, how: str) -> UserError:
    return UserError(
        f"the trained optimizer in {directory} is damaged ({how}): fetch it anew, or run its "
        "`metaopt train` again."
    )
