"""Kills a run with SIGKILL at random moments, again and again; it must end with the same bits.

    python tests/stress/survive.py --kills 100
    python tests/stress/survive.py --kills 20 --robot

The second kills a robot of MuJoCo that falls, with normalised observations. One process imports
everything once and forks a trainer for every start, so that a start takes as little as JAX needs
for a device and a program out of its cache (a robot's is in none: it is compiled). Saves are so
frequent that many of the kills fall into one. A run that comes to its end is compared with an
undisturbed one, and a new run begins.
"""

import argparse
import dataclasses
import json
import logging
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from metaopt import Component, Config, OuterConfig
from metaopt.config.recipes import RECIPES
from metaopt.estimators import NRES
from metaopt.training.loop import train
from metaopt.training.placement import prepare_jax

CONFIG = dataclasses.replace(RECIPES["tiny"], outer_steps=200, checkpoint_every=2)
ROBOT = dataclasses.replace(
    CONFIG,
    problem=Component("hopper", ("hidden=[4]", "normalise=true", "test_episodes=1")),
    estimator=NRES(particles=4, horizon=60, window=10, sigma=0.3),
    outer=OuterConfig("sgd", 0.1, warmup_steps=0),
)
SECONDS = 1.0
"""Within which a trainer is killed, from its first new metrics; once in four while it starts."""


def fork(config: Config, run: Path) -> int:
    """Starts a trainer in a process of its own: its id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:  # JAX has not started before this, so that its threads are the child's own
        prepare_jax(1)
        train(config, run, on_notice=lambda text: None)
        status = 0
    finally:
        sys.stderr.flush()
        os._exit(status)


def outcome(run: Path) -> tuple[bytes, list[dict]]:
    """The final theta and the metrics, but for the clock."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    rows = [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]
    (theta,) = (*run.glob("theta.safetensors"), *run.glob("optimizer/theta.safetensors"))
    return theta.read_bytes(), rows


def written(run: Path) -> int:
    """Bytes of metrics so far."""
    metrics = run / "metrics.jsonl"
    return metrics.stat().st_size if metrics.exists() else 0


def survive(config: Config, kills: int, folder: Path, seed: int) -> str:
    """Runs, kills and compares; says what was seen.

    Raises:
      RuntimeError: where a trainer fails, or a run ends with other bits.
    """
    draw = random.Random(seed)
    undisturbed = folder / "undisturbed"
    if os.waitpid(fork(config, undisturbed), 0)[1]:
        raise RuntimeError("the undisturbed run failed")
    expected = outcome(undisturbed)
    done = in_saves = finished = 0
    while True:
        run = folder / f"run{finished}"
        lines, began, child = written(run), time.time(), fork(config, run)
        until = None if draw.random() < 0.75 else time.monotonic() + draw.uniform(0, 3 * SECONDS)
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            if until is None and written(run) > lines:
                until = time.monotonic() + draw.uniform(0, SECONDS)
            if done < kills and until is not None and time.monotonic() > until:
                os.kill(child, signal.SIGKILL)
                ended = os.waitpid(child, 0)
                break
            time.sleep(0.002)
        if ended[1] == signal.SIGKILL:
            done += 1
            unfinished = (run / "checkpoints").glob("*tmp*")
            in_saves += any(path.stat().st_mtime > began for path in unfinished)
        elif ended[1]:
            raise RuntimeError(f"a trainer failed after {done} kills, in {run}")
        else:
            if outcome(run) != expected:
                raise RuntimeError(f"{run} ended with other bits than {undisturbed}")
            finished += 1
            if done >= kills:
                return f"{done} kills, {in_saves} in a save, {finished} runs with the same bits"


if __name__ == "__main__":
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--robot", action="store_true")
    arguments = parser.parse_args()
    config = ROBOT if arguments.robot else CONFIG
    with tempfile.TemporaryDirectory() as folder:
        print(survive(config, arguments.kills, Path(folder), arguments.seed))
