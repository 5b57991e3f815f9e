"""The baselines' curves on the suites, which are shipped so that nobody has to run them again.

    python docs/suite_curves.py --cache runs/suites

Every baseline of `metaopt.evaluation.suites.SUITE_BASELINES` on every task of every suite, the
first baselines first. A file is written after each sweep, and what is in it already is not run, so
that the script may be stopped and called again; remove a file to make it anew.
"""

import argparse
import sys
import time
from pathlib import Path

from metaopt import make_task
from metaopt.core.own_numbers import own_numbers
from metaopt.evaluation.baselines import RATES, baseline, baseline_of, settings_of, stacked
from metaopt.evaluation.suite_curves import FOLDER, Kept, SuiteCurves, read_curves, write_curves
from metaopt.evaluation.suites import SUITE_BASELINES, SUITES
from metaopt.evaluation.trials import measured_every, run_trial
from metaopt.training.save import hardware, versions


def sweep(label: str, name: str, steps: int, seeds: int, cache: Path) -> Kept:
    """A baseline's curves on a task."""
    task = make_task(label)
    trial, _ = run_trial(
        task, baseline(name), stacked(settings_of(name, RATES)), task.data(),
        horizons=(steps,), every=measured_every(steps), seeds=seeds,
        judged=baseline_of(name).judged, cache=cache,
    )  # fmt: skip
    return Kept(trial.curves[steps], trial.accuracies.get(steps))


def main() -> int:
    """Runs what is to be run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("runs/suites"))
    parser.add_argument("--suites", nargs="+", default=list(SUITES))
    parser.add_argument("--baselines", nargs="+", default=list(SUITE_BASELINES))
    arguments = parser.parse_args()
    about = f"{hardware()}; JAX {versions()['jax']}"
    for name in arguments.suites:
        suite = SUITES[name]
        file, began = FOLDER / f"{name}-{suite.num_steps}.npz", time.perf_counter()
        kept = dict(read_curves(file).sweeps)
        kept = {of: curves for of, curves in kept.items() if of[0] in suite.tasks}
        missing = [(label, one) for one in arguments.baselines for label in suite.tasks]
        for label, one in [pair for pair in missing if pair not in kept]:
            with own_numbers():
                found = sweep(label, one, suite.num_steps, suite.seeds, arguments.cache)
            kept[label, one] = found
            file.parent.mkdir(exist_ok=True)
            write_curves(file, SuiteCurves(about, kept))
            minutes = (time.perf_counter() - began) / 60
            print(f"{name}: {one} on {label} after {minutes:.1f} minutes", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
