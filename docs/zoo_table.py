"""The table of the zoo's page: what tuned baselines reach on each member.

    python docs/zoo_table.py --cache runs/zoo

Cheap members come first, and ``tasks/references.json`` and the table made of it are written anew
after each; what was run before comes from the cache, so that the script may be stopped and called
again. Members whose sweeps are estimated to take more than a quarter of an hour here, or whose data
are not at hand, keep what is stored of them, or are listed as not run.
"""

import argparse
import json
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
from metaopt.tasks.progress import FILE, Reference, references

HERE = Path(__file__).parent
BASELINES = ("adamw_cosine", "muon_cosine")
STEPS, SEEDS, MINUTES = 1000, 3, 15
KEY = jax.random.key(0)
HEADS = ("member", "parameters", "MFLOP a step", "µs a step", "start", "AdamW", "Muon")


def measured(task, size, flops, cache):
    """A member's `Reference`: each baseline at its best rate."""
    data, finals, start, seconds = task.data(), {}, 0.0, 0.0
    for name in reversed(BASELINES):
        trial, _ = run_trial(
            task, baseline(name), jnp.array(RATES, jnp.float32), data,
            horizons=(STEPS,), every=measured_every(STEPS), seeds=SEEDS, cache=cache,
        )  # fmt: skip
        curves = trial.curves[STEPS][..., 2]  # [rates, seeds, points]
        means = np.where(np.isfinite(curves[..., -1]), curves[..., -1], np.inf).mean(axis=1)
        final = interval(curves[int(means.argmin()), :, -1])
        finals[name] = (_short(final.mean), _short(final.half_width))
        start, seconds = float(curves[0, :, 0].mean()), trial.seconds_per_step
    return Reference(size, _short(flops / 1e6), _short(1e6 * seconds), _short(start), finals)


def _short(value):
    return float(f"{value:.5g}")


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
    cells = [f"`{name}`", f"{size:,}"]
    if found is None:
        why = "its data were not at hand" if flops is None else f"about {minutes:.0f} min"
        return [
            *cells,
            "" if flops is None else f"{flops / 1e6:.2g}",
            "",
            f"not run: {why}",
            "",
            "",
        ]
    said = [f"{mean:.3g} ± {half:.1g}" for mean, half in (found.finals[one] for one in BASELINES)]
    return [*cells, f"{found.mflops:.2g}", f"{found.microseconds:.0f}", f"{found.start:.3g}", *said]


def write(known, found):
    """The references and the page's table."""
    stored = (f"{json.dumps(name)}: {json.dumps(found[name]._asdict())}" for name in sorted(found))
    write_atomically(FILE, "{\n" + ",\n".join(stored) + "\n}\n")
    rows = [row_of(name, *known[name], found.get(name)) for name in sorted(known)]
    lines = (" | ".join(row) for row in (HEADS, ["---"] * len(HEADS), *rows))
    table = "".join(f"| {line} |\n" for line in lines)
    page = HERE / "task-zoo.md"
    text = re.sub(r"(\| member \|.*\n)(\|.*\n)+", lambda _: table, page.read_text())
    write_atomically(page, text)


def main() -> int:
    """Runs what is to be run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("runs/zoo"))
    parser.add_argument("--only", nargs="*", help="members; those without a row if not given")
    arguments = parser.parse_args()
    speed, found = product_speed(), dict(references()) if FILE.exists() else {}
    names = [name for name, factory in TASKS.items() if isinstance(factory, partial)]
    known = {name: about(name, speed) for name in names}
    missing = arguments.only or [name for name in names if name not in found]
    for name in sorted(missing, key=lambda name: known[name][2]):
        size, flops, minutes = known[name]
        if minutes <= MINUTES:
            began = time.perf_counter()
            with own_numbers():
                found[name] = measured(TASKS[name](), size, flops, arguments.cache)
            took = (time.perf_counter() - began) / 60
            print(f"{name}: {took:.1f} of {minutes:.1f} minutes", flush=True)
            write(known, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
