"""How an outer step's time and memory grow with each dimension and with the devices, as curves."""

import statistics
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console

from metaopt.config.schema import Component, Config
from metaopt.estimators import NRES
from metaopt.parallel.sharding import particle_mesh
from metaopt.training.experiment import build
from metaopt.training.placement import share
from metaopt.training.program import program

AXES = {
    "particles N": (4, 16, 64),
    "window W": (1, 5, 20, 100),
    "horizon T": (100, 400, 1600, 6400),
    "inner width": (8, 32, 128),
    "rule width": (8, 32, 128),
}
"""What is varied, the rest at its first guess: N = 8, W = 5, T = 100, both widths 32 (16 inner)."""

STRONG, WEAK = "devices, N = 64", "devices, N = 8 each"
"""The axes on which the devices are varied: all share the same work, or each brings its own."""

ROUNDS = 5


def _config(axis: str, value: int) -> Config:
    at: dict[str, Any] = {"particles N": 8, "window W": 5, "horizon T": 100}
    at |= {"inner width": 16, "rule width": 32, axis: value}
    return Config(
        task=Component("digits_mlp", (f"hidden=[{at['inner width']}]", "batch_size=32")),
        optimizer=Component("mlp", (f"hidden=[{at['rule width']}, {at['rule width']}]",)),
        estimator=NRES(
            particles=at["particles N"], window=at["window W"], horizon=at["horizon T"], sigma=0.01
        ),
    )


def time_scaling(console: Console) -> list[dict[str, Any]]:
    """A row a point: its ``axis`` and ``value``, ``ms`` an outer step and ``program_mb``."""
    rows = []
    for axis, value, config, devices in _points():
        with console.status(f"{axis} = {value} ..."):
            rows.append({"axis": axis, "value": value, **_point(config, devices)})
    return rows


def _points() -> Iterator[tuple[str, int, Config, int]]:
    """Axis, value, what runs, and on how many devices."""
    available = jax.device_count()
    for axis, values in AXES.items():
        for value in values:
            config = _config(axis, value)
            yield axis, value, config, share(config.estimator.particles, available)
    for devices in (2**k for k in range(7) if 2**k <= available):
        yield STRONG, devices, _config("particles N", 64), devices
        yield WEAK, devices, _config("particles N", 8 * devices), devices


def efficiencies(rows: list[dict[str, Any]]) -> list[dict[str, float]]:
    """By number of devices, the fractions of an ideal speed on both of these axes.

    Examples:
      >>> times = {(STRONG, 1): 8.0, (STRONG, 2): 5.0, (WEAK, 1): 1.0, (WEAK, 2): 2.0}
      >>> rows = [{"axis": a, "value": n, "ms": ms} for (a, n), ms in times.items()]
      >>> efficiencies(rows)[1]
      {'devices': 2, 'strong_ms': 5.0, 'strong': 0.8, 'weak_ms': 2.0, 'weak': 0.5}
    """
    strong, weak = (
        {row["value"]: row["ms"] for row in rows if row["axis"] == axis} for axis in (STRONG, WEAK)
    )
    return [
        {
            "devices": n,
            "strong_ms": strong[n],
            "strong": strong[1] / (n * strong[n]),
            "weak_ms": weak[n],
            "weak": weak[1] / weak[n],
        }
        for n in strong
    ]


def _point(config: Config, devices: int) -> dict[str, float]:
    mesh = particle_mesh(devices)
    pieces = program(build(config), mesh, seed=0, at_most=16)
    state = pieces.start(pieces.key, pieces.data)
    steps = pieces.steps.lower(state, pieces.data, jnp.int32(1)).compile()
    times = []
    for count in [1] + [4] * ROUNDS:
        began = time.perf_counter()
        state, metrics = steps(state, pieces.data, jnp.int32(count))
        jax.block_until_ready(metrics)
        times.append((time.perf_counter() - began) / count)
    memory = steps.memory_analysis()
    size = memory.temp_size_in_bytes + memory.argument_size_in_bytes
    return {"ms": 1e3 * statistics.median(times[1:]), "program_mb": size / 2**20}
