"""From a finished run to a pretrained optimizer: files that describe and check themselves."""

import json
import re
from pathlib import Path
from typing import Any

from metaopt.config.schema import to_json
from metaopt.core.errors import UserError
from metaopt.core.files import json_text, make_empty_folder, parse_json, read_text, sha256
from metaopt.core.needs import needs
from metaopt.core.sizes import count_of
from metaopt.exporting.card import card
from metaopt.pretrained import artefact, trace
from metaopt.pretrained import load as pretrained
from metaopt.pretrained.gains import headlines_in
from metaopt.training.run_directory import RunDirectory

FACTS = ("trained_on", "trained_range", "recipe", "versions", "hardware")
"""What a run's optimizer knows of itself and an exported one goes on saying."""


def export(
    run: Any, name: str | None = None, out: str | Path | None = None, note: str = ""
) -> Path:
    """Writes the optimizer of a run with its evaluation, a trace and a card, for `metaopt.load`.

    Public as `metaopt.export`.

    Args:
      run: the directory of a run that is finished and evaluated, or its `metaopt.Run`.
      name: what the optimizer is to be called; as the run's folder if not given.
      out: the directory to write, which must not exist or be empty; ``name`` if not given. In the
        package of a ``metaopt.checkpoints`` entry point it is to bear the name.
      note: for the card, Markdown: what else is known of it.

    Returns:
      The directory.

    Raises:
      UserError: for a bad name, a run that is not finished or not evaluated, or a directory in use.
    """
    name = Path(run).resolve().name if name is None else name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UserError(f"a name has letters, digits, '.', '-' and '_' only, got {name!r}.")
    directory, out = RunDirectory(Path(run)), Path(name if out is None else out)
    config = directory.read_config()
    if config.problem.name != "training":
        raise artefact.no_optimizer(directory.path, config.problem.name)
    optimizer, theta = pretrained.read(directory.path)
    known = artefact.read_artefact(directory.optimizer).description
    facts = {fact: known[fact] for fact in FACTS if fact in known}
    before = {"started_from": known["started_from"]} if "started_from" in known else {}
    done = facts.get("trained_on", {}).get("outer_steps")
    if len(facts) < len(FACTS) or done != config.outer_steps:
        raise UserError(
            f"{directory.path} has done {done or 'an unknown number'} of {config.outer_steps} "
            f"outer steps: `metaopt train ... --out {directory.path}` finishes it."
        )
    facts["recipe"] = json.loads(to_json(config))  # with the evaluation that was asked for last
    facts = {"name": name} | facts | before
    facts |= {"needs": needs(optimizer, theta)}
    facts |= {"meta_parameters": count_of(theta)}
    evaluation = _evaluation(directory)
    curves = directory.path / "curves.png"
    files: dict[str, str | bytes] = {
        "eval.json": json_text(evaluation, indent=1),
        "trace.npz": trace.to_npz(trace.record(optimizer, theta, config.estimator.horizon)),
        "CARD.md": card(facts, evaluation, curves.is_file(), note),
    }
    if curves.is_file():
        files["curves.png"] = curves.read_bytes()
    make_empty_folder(out)
    artefact.write(out, config.optimizer, theta, files=files, **facts)
    return out


def _evaluation(directory: RunDirectory) -> dict[str, Any]:
    """A run's own evaluation."""
    try:
        content = parse_json(read_text(directory.path / "evaluation.json"))
        of_theta = content["of"]["theta"] if headlines_in(content) and "rows" in content else None
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        of_theta = None
    if of_theta != sha256(directory.optimizer / artefact.THETA):
        raise UserError(
            f"{directory.path} holds no evaluation of this optimizer: the `metaopt train` command "
            "that made it, called again, evaluates it."
        )
    return content
