"""The trained optimizers there are: those that distributions ship, and those of the runs here.

A distribution ships optimizers in a package whose folders hold one each, named under the entry
point group ``metaopt.checkpoints``. `metaopt` itself imports none of them.
"""

from importlib.resources import files
from pathlib import Path

from metaopt.config.registry import choose, installed, load_entry
from metaopt.core.errors import UserError
from metaopt.core.files import parse_json, read_text, sha256
from metaopt.pretrained.artefact import CONFIG, THETA
from metaopt.pretrained.gains import headlines_in

GROUP = "metaopt.checkpoints"


def shipped() -> dict[str, Path]:
    """The directories of all shipped optimizers, by name; public as `metaopt.shipped`.

    A distribution whose package does not load is left out with a warning.

    Raises:
      UserError: where two distributions use one name.

    Examples:
      >>> "mlp-digits" in shipped()
      True
    """
    found: dict[str, Path] = {}
    for entry in installed(GROUP):
        package = load_entry(entry)
        for folder in [] if package is None else sorted(Path(str(files(package))).iterdir()):
            if (folder / THETA).is_file() and found.setdefault(folder.name, folder) != folder:
                raise UserError(
                    f"two installed distributions ship an optimizer named {folder.name!r}: name "
                    f"its directory, {found[folder.name]} or {folder}."
                )
    return found


def local(runs: Path = Path("runs")) -> dict[str, Path]:
    """The runs in a folder that hold a trained optimizer, by their paths.

    Examples:
      >>> local(Path("nowhere"))
      {}
    """
    folders = sorted(runs.iterdir()) if runs.is_dir() else []
    return {str(run): run for run in folders if (run / "optimizer" / THETA).is_file()}


def directory_of(what: str | Path) -> Path:
    """The directory with the files of a trained optimizer.

    Args:
      what: a run's directory, the optimizer's own, or the name of a shipped one. A directory comes
        first.

    Raises:
      UserError: if there is none, naming those that there are.
    """
    path = Path(what)
    for directory in (path / "optimizer", path):
        if (directory / THETA).is_file():
            return directory
    if isinstance(what, Path) or path.exists() or len(path.parts) != 1:
        raise UserError(
            f"{path} holds no trained optimizer: name a directory that `metaopt train` has made, "
            f"or one of {', '.join(shipped())}."
        )
    return choose("trained optimizer", what, shipped() | local())


def is_trained(what: str) -> bool:
    """Whether `directory_of` finds a trained optimizer by this.

    Examples:
      >>> is_trained("mlp-digits"), is_trained("adam")
      (True, False)
    """
    try:
        return bool(directory_of(what))
    except UserError:
        return False


def summary(path: Path) -> str:
    """A line on a trained optimizer: what it was trained on, and what it gained there.

    Every gain has its interval; an evaluation of another theta, or one that is damaged, is none.

    Args:
      path: a run's directory or the optimizer's own.
    """
    directory = directory_of(path)
    try:
        description = parse_json(read_text(directory / CONFIG))
        trained = description.get("trained_on")
        what = description["optimizer"]["name"]
        if trained is not None:
            tasks = trained.get("tasks", [trained["task"]])
            what += f" on {', '.join(tasks)}, {trained['num_steps']} steps"
    except (OSError, ValueError, KeyError, TypeError):
        return "damaged"
    for file in (directory / "eval.json", path / "evaluation.json"):
        try:
            evaluation = parse_json(read_text(file))
            if evaluation["of"]["theta"] != sha256(directory / THETA):
                continue
            gains = headlines_in(evaluation)
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            continue
        several = len(gains) > 1
        said = (f"{gain.task}: " * several + gain.sentence() for gain in gains)
        return f"{what}: {'; '.join(said)}"
    return f"{what}: not evaluated"
