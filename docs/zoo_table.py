"""The table of the zoo's page: what tuned baselines reach on each member.

    python docs/zoo_table.py --cache runs/zoo

Cheap members come first, and the table is written anew after each; what was run before comes from
the cache, so that the script may be stopped and called again. Members whose sweeps are estimated to
take more than a quarter of an hour here, or whose data are not at hand, are listed as not run.
"""

import argparse
import math
import re
import sys
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from metaopt import UserError, flops_of
from metaopt.core.files import write_atomically
from metaopt.core.interval import interval
from metaopt.core.own_numbers import own_numbers
from metaopt.evaluation.baselines import RATES, baseline
from metaopt.evaluation.suites import SECONDS_TO_COMPILE, SHARE, product_speed
from metaopt.evaluation.trials import measured_every, run_trial
from metaopt.tasks import TASKS

HERE = Path(__file__).parent
BASELINES = ("adamw_cosine", "muon_cosine")
STEPS, SEEDS, MINUTES = 1000, 3, 15
KEY = jax.random.key(0)
HEADS = ("member", "parameters", "MFLOP a step", "start", "AdamW", "Muon")


def measured(task, cache):
    """Start, and for each baseline final test loss (mean, half width), rate and µs a step."""
    data, rates = task.data(), jnp.array(RATES, jnp.float32)
    found = {}
    for name in BASELINES:
        trial, _ = run_trial(
            task, baseline(name), rates, data,
            horizons=(STEPS,), every=measured_every(STEPS), seeds=SEEDS, cache=cache,
        )  # fmt: skip
        curves = trial.curves[STEPS][..., 2]  # [rates, seeds, points]
        finals = np.where(np.isfinite(curves[..., -1]), curves[..., -1], np.inf).mean(axis=1)
        best = int(finals.argmin())
        final = interval(curves[best, :, -1])
        found[name] = {
            "final": float(final.mean), "half_width": float(final.half_width),
            "rate": RATES[best], "us": 1e6 * trial.seconds_per_step,
        }  # fmt: skip
        found["start"] = float(curves[0, :, 0].mean())
    return found


def about(name, speed):
    """Parameters, FLOPs a step and the sweep's minutes; None for a task whose data is not here."""
    task = TASKS[name]()
    start = lambda key: task.init(task.sample(key), key)
    size = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(jax.eval_shape(start, KEY)))
    try:
        flops = flops_of(task)
    except UserError:
        return size, None, math.inf
    work = flops * len(RATES) * SEEDS * len(BASELINES) * STEPS
    return size, flops, (work / (SHARE * speed) + len(BASELINES) * SECONDS_TO_COMPILE) / 60


def row_of(name, size, flops, minutes, found):
    """A member's line of the table."""
    cells = [f"`{name}`", f"{size:,}", "" if flops is None else f"{flops / 1e6:.2g}"]
    if found is None:
        why = "its data were not at hand" if flops is None else f"about {minutes:.0f} min"
        return [*cells, f"not run: {why}", "", ""]
    reached = [found[name] for name in BASELINES]
    said = [f"{one['final']:.3g} ± {one['half_width']:.1g}" for one in reached]
    return [*cells, f"{found['start']:.3g}", *said]


def write(known, references):
    """The page's table."""
    rows = [row_of(name, *known[name], references.get(name)) for name in sorted(known)]
    lines = (" | ".join(row) for row in (HEADS, ["---"] * len(HEADS), *rows))
    table = "".join(f"| {line} |\n" for line in lines)
    page = HERE / "task-zoo.md"
    text = re.sub(r"(\| member \|.*\n)(\|.*\n)+", lambda _: table, page.read_text())
    write_atomically(page, text)


def main() -> int:
    """Runs what is to be run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("runs/zoo"))
    arguments = parser.parse_args()
    speed, references = product_speed(), {}
    names = [name for name, factory in TASKS.items() if isinstance(factory, partial)]
    known = {name: about(name, speed) for name in names}
    for name in sorted(known, key=lambda name: known[name][2]):
        if known[name][2] <= MINUTES:
            began = time.perf_counter()
            with own_numbers():
                references[name] = measured(TASKS[name](), arguments.cache)
            minutes = (time.perf_counter() - began) / 60
            print(f"{name}: {minutes:.1f} of {known[name][2]:.1f} minutes", flush=True)
            write(known, references)
    return 0


if __name__ == "__main__":
    sys.exit(main())
