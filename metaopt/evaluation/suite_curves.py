"""What the baselines did on the suites, so that an optimizer is judged without running them again.

A file a suite, made by ``python docs/suite_curves.py``: every loss of every rate and seed. They are
used where an evaluation asks for just these runs, and where its own runs start with the same
losses; another task, another data set or another draw of initialisations starts elsewhere.
"""

import io
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metaopt.core.files import write_atomically
from metaopt.evaluation.baselines import RATES

FOLDER = Path(__file__).parent / "curves"


class Kept(NamedTuple):
    """A baseline's sweep on a task.

    Attributes:
      loss: ``[rates, seeds, points + 1, 3]`` float32, as in `metaopt.evaluation.trials.Trial`.
      accuracy: the same, or ``None``.
    """

    loss: np.ndarray
    accuracy: np.ndarray | None = None


class SuiteCurves(NamedTuple):
    """The sweeps of a suite.

    Attributes:
      about: where and with what they were measured, in words.
      sweeps: (task's label, baseline) -> curves.
    """

    about: str = ""
    sweeps: Mapping[tuple[str, str], Kept] = {}


def write_curves(file: Path, kept: SuiteCurves) -> None:
    """Writes the curves of a suite; `read_curves` reads them."""
    names, arrays = [], dict[str, Any]()
    for i, (name, one) in enumerate(sorted(kept.sweeps.items())):
        names.append(name)
        arrays |= {f"loss/{i}": one.loss}
        arrays |= {} if one.accuracy is None else {f"accuracy/{i}": one.accuracy}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, about=json.dumps([kept.about, names]), **arrays)
    write_atomically(file, buffer.getvalue())


def read_curves(file: Path) -> SuiteCurves:
    """What `write_curves` wrote; nothing if it is not there or damaged, which is said."""
    try:
        with file.open("rb") as stream, np.load(stream) as stored:
            about, names = json.loads(str(stored["about"]))
            sweeps = {
                (label, baseline): Kept(stored[f"loss/{i}"], stored.get(f"accuracy/{i}"))
                for i, (label, baseline) in enumerate(names)
            }
            return SuiteCurves(about, sweeps)
    except FileNotFoundError:
        return SuiteCurves()
    except Exception as error:  # each damage has its own kind
        warnings.warn(f"{file} is damaged ({error}): its baselines are run again.", stacklevel=2)
        return SuiteCurves()


def curves_for(
    suite: str, steps: int, seeds: int, rates: Sequence[float], tune: Sequence[str]
) -> SuiteCurves:
    """The curves that an evaluation of a suite can use.

    Args:
      suite: its name.
      steps, seeds, rates, tune: of the evaluation; the curves hold some seeds of one length at
        `metaopt.evaluation.baselines.RATES`, of which ``rates`` may be some.
    """
    if not set(rates) <= set(RATES) or set(tune) - {"rate"}:
        return SuiteCurves()
    kept = read_curves(FOLDER / f"{suite}-{steps}.npz")
    at = [RATES.index(rate) for rate in rates]
    some = lambda one: Kept(one.loss[at], None if one.accuracy is None else one.accuracy[at])
    enough = {name: some(one) for name, one in kept.sweeps.items() if one.loss.shape[1] >= seeds}
    return kept._replace(sweeps=enough)


def start_alike(kept: Kept, losses: np.ndarray) -> bool:
    """Whether runs ``[thetas, seeds, points + 1, 3]`` start with the losses of a sweep.

    Examples:
      >>> sweep = Kept(np.ones((15, 3, 2, 3), np.float32))
      >>> start_alike(sweep, np.ones((1, 2, 2, 3))), start_alike(sweep, np.zeros((1, 2, 2, 3)))
      (True, False)
    """
    seeds, points = losses.shape[1:3]
    if kept.loss.shape[2] != points or kept.loss.shape[1] < seeds:
        return False
    return bool(np.allclose(kept.loss[0, :seeds, 0], losses[0, :, 0], rtol=1e-3, atol=1e-6))
