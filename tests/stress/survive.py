"""Kills a run with SIGKILL at random moments, again and again; it must end with the same bits.

    python tests/stress/survive.py --kills 100 --kinds all

One process imports everything once and forks a trainer for every start, so that a start takes as
little as JAX needs for a device and a program out of its cache. Saves are so frequent that many of
the kills fall into one. A run that comes to its end is compared with an undisturbed one, and a new
run begins. The kills are shared by the `KINDS` of runs that are named.
"""

import argparse
import dataclasses
import importlib.util
import json
import logging
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import jax.numpy as jnp

from metaopt import Component, Config, UnrolledProblem
from metaopt.config.recipes import RECIPES
from metaopt.training.experiment import NOTHING, Own, build
from metaopt.training.loop import train
from metaopt.training.placement import prepare_jax


def small(recipe: str, outer_steps: int, **changes) -> Config:
    """A recipe's run with little to do in each outer step."""
    config = RECIPES[recipe]
    estimator = dataclasses.replace(config.estimator, particles=4, horizon=8, window=2)
    changes = {"estimator": estimator, "outer_steps": outer_steps, "test_every": None} | changes
    return dataclasses.replace(config, checkpoint_every=2, **changes)


def pendulum_of_ones_own() -> UnrolledProblem:
    """A problem that is in no catalogue: a damped pendulum under a linear controller."""

    def step(theta, state, data):
        angle, speed = state
        torque = theta["gain"] @ jnp.stack([angle, speed])
        speed = 0.99 * speed + 0.1 * (jnp.sin(angle) + torque)
        angle = angle + 0.1 * speed
        return (angle, speed), angle**2

    return UnrolledProblem(
        init=lambda theta, data, horizon, key: (jnp.float32(1.0), jnp.float32(0.0)),
        step=step,
        init_theta=lambda key: {"gain": jnp.zeros(2)},
        loss_cap=100.0,
    )


KINDS = {
    "task": (small("tiny", 200), NOTHING),
    "own": (
        small("tiny", 200, problem=Component("own_pendulum")),
        Own(problem=pendulum_of_ones_own()),
    ),
    "ends": (small("cartpole_nres", 100), NOTHING),
    "mixture": (
        small("tiny", 100, mixture=("quadratic",), normalise_mixture=True),
        NOTHING,
    ),
    "lorenz": (small("lorenz_nres", 100), NOTHING),
    "robot": (small("swimmer_nres", 60), NOTHING),
    "fall": (
        small(
            "swimmer_nres",
            60,
            problem=Component("hopper", ("hidden=[4]", "normalise=true", "test_episodes=1")),
        ),
        NOTHING,
    ),
}
"""Runs by what is special about them; the robots need MuJoCo, and are left out without it."""

SECONDS = 1.0
"""Within which a trainer is killed, from its first new metrics; once in four while it starts."""


def fork(kind: str, run: Path) -> int:
    """Starts a trainer in a process of its own: its id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:  # JAX has not started before this, so that its threads are the child's own
        prepare_jax(1)
        config, own = KINDS[kind]
        train(config, run, experiment=build(config, own), on_notice=lambda text: None)
        status = 0
    except Exception:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def outcome(run: Path) -> tuple[bytes, list[dict]]:
    """The final theta and the metrics, but for the clock."""
    theta = run / "theta.safetensors"
    theta = theta if theta.exists() else run / "optimizer" / "theta.safetensors"
    lines = (run / "metrics.jsonl").read_text().splitlines()
    rows = [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]
    return theta.read_bytes(), rows


def written(run: Path) -> int:
    """Bytes of metrics so far."""
    metrics = run / "metrics.jsonl"
    return metrics.stat().st_size if metrics.exists() else 0


def survive(kind: str, kills: int, folder: Path, seed: int) -> str:
    """Runs, kills and compares runs of a kind; says what was seen.

    Raises:
      RuntimeError: where a trainer fails, or a run ends with other bits.
    """
    draw = random.Random(seed)
    undisturbed = folder / "undisturbed"
    if os.waitpid(fork(kind, undisturbed), 0)[1]:
        raise RuntimeError("the undisturbed run failed")
    expected = outcome(undisturbed)
    done = in_saves = finished = 0
    while True:
        run = folder / f"run{finished}"
        lines, began, child = written(run), time.time(), fork(kind, run)
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
    parser.add_argument("--kinds", nargs="+", default=["task"], choices=["all", *KINDS])
    arguments = parser.parse_args()
    chosen = [*KINDS] if "all" in arguments.kinds else arguments.kinds
    if "all" in arguments.kinds and importlib.util.find_spec("mujoco") is None:
        chosen = [kind for kind in chosen if kind not in ("robot", "fall")]
    ends = [arguments.kills * number // len(chosen) for number in range(len(chosen) + 1)]
    for kind, begin, end in zip(chosen, ends, ends[1:], strict=False):
        with tempfile.TemporaryDirectory() as folder:
            said = survive(kind, end - begin, Path(folder), arguments.seed)
        print(said if chosen == ["task"] else f"{kind}: {said}", flush=True)
