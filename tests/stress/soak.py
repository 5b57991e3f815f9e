"""Trains for an hour with some checkpoints a second: memory and files must not grow.

    python tests/stress/soak.py --minutes 60

Prints the memory (resident, MiB), open files and files of the run along the way, and ends with 1
where the last quarter has more than the second one by over `GROWTH`. Linux only: it reads
/proc/self.
"""

import argparse
import dataclasses
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from metaopt.config.recipes import RECIPES
from metaopt.training.loop import Progress, train
from metaopt.training.placement import prepare_jax


class Sample(NamedTuple):
    """What is in use at a moment."""

    memory: float
    open_files: int
    files: int


GROWTH = Sample(memory=16, open_files=2, files=8)
"""What the last quarter may have more: MiB, and files of a save or a removal in flight."""


def sample(run: Path) -> Sample:
    """Memory in MiB, and files."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    memory = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    # A save in flight has files of its own for a moment.
    files = [p for p in run.rglob("*") if "tmp" not in str(p.relative_to(run))]
    return Sample(memory, len(os.listdir("/proc/self/fd")), len(files))


def soak(minutes: float, run: Path) -> list[Sample]:
    """Samples, a hundred in all, along a run of so many minutes."""
    config = dataclasses.replace(
        RECIPES["tiny"], outer_steps=10**9, checkpoint_every=100, log_every=100
    )
    began, samples, shown = time.monotonic(), list[Sample](), 0.0

    def watch(progress: Progress) -> None:
        nonlocal shown
        share = (time.monotonic() - began) / (60 * minutes)
        if share * 100 >= len(samples):
            samples.append(sample(run))
        if share >= shown:
            shown += 0.1
            print(f"{share:4.0%}  outer step {progress.row['step']:,}  {samples[-1]}", flush=True)

    finished = lambda: time.monotonic() - began > 60 * minutes
    train(config, run, on_progress=watch, should_stop=finished)
    return samples


def main() -> int:
    """Runs it, and says whether anything grew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    minutes = parser.parse_args().minutes
    prepare_jax(1)
    with tempfile.TemporaryDirectory() as folder:
        samples = soak(minutes, Path(folder) / "run")
    quarter = len(samples) // 4
    middle = lambda part: Sample(*map(statistics.median, zip(*part, strict=True)))
    second, last = middle(samples[quarter : 2 * quarter]), middle(samples[-quarter:])
    print(f"second quarter {second}\nlast quarter   {last}")
    grown = any(b > a + more for a, b, more in zip(second, last, GROWTH, strict=True))
    print("grown" if grown else "flat")
    return int(grown)


if __name__ == "__main__":
    sys.exit(main())
