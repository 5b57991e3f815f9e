"""How fast outer steps run here, and how far that is from what the device can do.

Each case runs in a process of its own, so that its start is a cold one and its memory its own:

    python -m metaopt.bench.outer_steps '{"case": "digits_w100", ...}'   (what `metaopt bench` does)

The yardsticks, a large float32 matrix product and a large copy, are timed in the same process in
turn with the outer steps, so that fractions of them mean something on a machine that is shared.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from metaopt.bench import open_loop
from metaopt.config.schema import Component, Config
from metaopt.estimators import NRES

DISPATCH_SECONDS = 0.3
"""How long the outer steps between two looks at the yardsticks take, about."""


SWAYING = ("first_update_s", "first_update_cached_s", "outer_ms")
"""The figures whose range over rounds is shown."""

QUIET = 0.3
"""Load a core up to which other programs hardly matter."""


@dataclass(frozen=True)
class Case:
    """Something to time.

    Attributes:
      config: what runs; of its outer loop only the outer optimizer matters.
      rows: rows of the training split, repeated up to so many; as it is where ``None``.
      robot: what MuJoCo simulates in it, for the yardstick: a model's file and frames a step.
    """

    config: Config
    rows: int | None = None
    robot: tuple[str, int] | None = None


def _digits(particles: int, window: int, *, horizon: int = 1000, optimizer: str = "mlp", **task):
    arguments = tuple(f"{name}={json.dumps(value)}" for name, value in task.items())
    return Config(
        task=Component("digits_mlp", arguments),
        optimizer=Component(optimizer),
        estimator=NRES(particles=particles, window=window, horizon=horizon, sigma=0.01),
    )


def cases() -> dict[str, Case]:
    """The matrix of cases: the paper's shapes, the default's, and every learned optimizer.

    Examples:
      >>> cases()["digits_w100"].config.estimator.particles
      10
    """
    from metaopt.config.registry import catalogue, find

    paper: dict[str, Any] = {"hidden": [32, 32, 32], "batch_size": 128, "activation": "gelu"}
    named = {
        "lorenz": Case(find("recipe", "lorenz_nres")),
        "digits_w100": Case(_digits(10, 100, **paper)),
        "digits_w10": Case(_digits(100, 10, **paper)),
        "digits_w1": Case(_digits(100, 1, **paper)),
        "digits_w1_48k_rows": Case(_digits(100, 1, **paper), rows=48_000),
        "adam_128": Case(
            _digits(8, 20, horizon=200, optimizer="adam", hidden=[128, 128], batch_size=32)
        ),
    }
    small = {
        f"small_{name}": Case(_digits(8, 20, horizon=200, optimizer=name, batch_size=32))
        for name in sorted(catalogue("learned optimizer"))
    }
    robots = {
        "swimmer": Case(find("recipe", "swimmer_nres"), robot=("swimmer.xml", 4)),
        "half_cheetah": Case(find("recipe", "half_cheetah_nres"), robot=("half_cheetah.xml", 5)),
    }
    return named | (robots if open_loop.is_installed() else {}) | small


def task_cases() -> dict[str, Case]:
    """The first member of every family of tasks, trained by Adam: what tasks cost by themselves.

    Examples:
      >>> task_cases()["task_image_mlp"].config.task.name
      'digits_mlp_128x128'
    """
    from metaopt.config.registry import catalogue

    first: dict[str, str] = {}
    for name, one in catalogue("task").items():
        if isinstance(one, partial):
            first.setdefault(one.func.__name__, name)
    return {
        f"task_{family}": Case(
            Config(
                task=Component(name),
                optimizer=Component("adam"),
                estimator=NRES(particles=8, window=20, horizon=200, sigma=0.01),
            )
        )
        for family, name in first.items()
    }


def run_case(name: str, *, seconds: float, devices: int | None, profile: Path | None) -> dict:
    """The figures of a case, measured in a process of its own; see `time_case`.

    Its compilation cache is empty at first; a second process then tells what a full one saves.

    Raises:
      RuntimeError: where that process fails, with what it said last.
    """
    with tempfile.TemporaryDirectory(prefix="metaopt-bench-") as cache:
        order = {"case": name, "seconds": seconds, "devices": devices, "cache": cache}
        figures = _child(order | {"profile": profile and str(profile.absolute())})
        again = _child(order | {"seconds": 0.0})
    return figures | {"first_update_cached_s": again["first_update_s"]}


def in_turns(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """One case's figures from several rounds: medians, and the ranges of what a machine sways.

    Args:
      rounds: figures of `run_case`.

    Examples:
      >>> in_turns([{"first_update_s": s} for s in (4.0, 3.0, 9.0)])
      {'first_update_s': 4.0, 'ranges': {'first_update_s': [3.0, 9.0]}}
    """
    number = lambda value: isinstance(value, int | float)
    columns = {name: [figures[name] for figures in rounds] for name in rounds[0]}
    middle = {n: statistics.median(v) if number(v[0]) else v[0] for n, v in columns.items()}
    ranges = {name: [min(columns[name]), max(columns[name])] for name in SWAYING if name in columns}
    return middle | {"ranges": ranges}


def load() -> float:
    """Runnable threads a core over the last minute: below `QUIET` the machine is."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)


def _child(order: dict[str, Any]) -> dict[str, Any]:
    order = order | {"began": time.time()}
    command = [sys.executable, "-m", "metaopt.bench.outer_steps", json.dumps(order)]
    # JAX reads the variable when it is imported, which is before `_main` runs.
    env = os.environ | {"JAX_COMPILATION_CACHE_DIR": order["cache"]}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing"]
        raise RuntimeError(f"case {order['case']} failed: {said[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def time_case(
    case: Case,
    *,
    seconds: float,
    devices: int | None,
    profile: str | None,
    import_s: float = 0.0,
) -> dict:
    """The figures of a case in this process, which should have done nothing with JAX before.

    Args:
      case: what to time.
      seconds: how long to time outer steps for; 0 stops after the first update.
      devices: for the particles; all that divide them if not given.
      profile: folder for a trace of a dispatch, as TensorBoard and Perfetto read it.
      import_s: what passed from the process's start to this call.

    Returns:
      - ``first_update_s``, from the process's start to the first update of theta, and its parts
        ``import_s``, ``build_s``, ``trace_s``, ``compile_s``;
      - ``steps_per_s`` (unroll steps) and ``outer_ms``, the medians of several dispatches;
      - ``flops_per_step``, ``gflops``, ``matmul_gflops`` and ``flops_fraction``;
      - ``state_bytes_per_step`` (the particle's state, read and written once), ``gbytes``,
        ``copy_gbytes``, ``bytes_fraction``;
      - ``program_mb`` (arguments and temporaries of the compiled program) and ``peak_mb`` (of the
        process, until the first update);
      - of a robot also ``open_loop_steps_per_s`` and ``open_loop_fraction``, see
        `metaopt.bench.open_loop`.
    """
    import jax
    import jax.numpy as jnp

    from metaopt.parallel.sharding import particle_mesh
    from metaopt.training.experiment import build
    from metaopt.training.placement import devices_for
    from metaopt.training.program import lower_and_start, program

    began = time.perf_counter()
    experiment = build(case.config)
    devices = devices or devices_for(case.config, experiment)
    mesh = particle_mesh(devices)
    if case.rows is not None:
        experiment = experiment._replace(problem=_with_rows(experiment.problem, case.rows))
    pieces = program(experiment, mesh, seed=0, at_most=256)
    built = time.perf_counter()
    lowered, started = lower_and_start(pieces, pieces.data, begin=True)
    traced = time.perf_counter()
    steps, state = lowered.compile(), started.result()
    compiled = time.perf_counter()
    state, metrics = steps(state, pieces.data, jnp.int32(1))
    jax.block_until_ready(metrics)
    first = time.perf_counter()
    figures: dict[str, Any] = {
        "device": f"{devices} x {jax.devices()[0].device_kind}",
        "first_update_s": import_s + first - began,
        "import_s": import_s,
        "build_s": built - began,
        "trace_s": traced - built,
        "compile_s": compiled - traced,
    }
    if not seconds:
        return figures
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    cost = _cost_of_a_step(experiment.problem, pieces.data)

    def outer_steps(count: int) -> float:
        """Seconds an outer step."""
        nonlocal state, metrics
        began = time.perf_counter()
        state, metrics = steps(state, pieces.data, jnp.int32(count))
        jax.block_until_ready(metrics)
        return (time.perf_counter() - began) / count

    limits = yardsticks()
    if case.robot is not None:
        limits["open_loop_steps_per_s"] = open_loop.rate(*case.robot)
    count = min(256, max(1, round(DISPATCH_SECONDS / outer_steps(1))))
    times: list[float] = []
    rates: dict[str, list[float]] = {name: [] for name in limits}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        times.append(outer_steps(count))
        for name, rate in limits.items():
            rates[name].append(rate())
    if profile:
        with jax.profiler.trace(profile):
            outer_steps(count)
    per_outer = statistics.median(times)
    rate = int(metrics["unroll_steps"][0]) / per_outer  # the first update also counts burning in
    limit = {name: statistics.median(values) for name, values in rates.items()}
    memory = steps.memory_analysis()
    if case.robot is not None:
        simulated = limit["open_loop_steps_per_s"]
        figures |= {"open_loop_steps_per_s": simulated, "open_loop_fraction": rate / simulated}
    return figures | {
        "steps_per_s": rate,
        "outer_ms": 1e3 * per_outer,
        **cost,
        "gflops": rate * cost["flops_per_step"] / 1e9,
        "matmul_gflops": limit["matmul_gflops"],
        "flops_fraction": rate * cost["flops_per_step"] / 1e9 / limit["matmul_gflops"],
        "gbytes": rate * cost["state_bytes_per_step"] / 1e9,
        "copy_gbytes": limit["copy_gbytes"],
        "bytes_fraction": rate * cost["state_bytes_per_step"] / 1e9 / limit["copy_gbytes"],
        "program_mb": (memory.temp_size_in_bytes + memory.argument_size_in_bytes) / 2**20,
        "peak_mb": peak_mb,
    }


def _with_rows(problem, rows: int):
    import jax
    import numpy as np

    def data():
        loaded = problem.data()
        more = lambda column: np.resize(column, (rows, *column.shape[1:]))
        return loaded | {"train": jax.tree.map(more, loaded["train"])}

    return problem._replace(data=data)


def _cost_of_a_step(problem, data) -> dict[str, float]:
    """Of one unroll step of one half by itself: its arithmetic, and its state."""
    import jax

    from metaopt.core.arithmetic import flops_in
    from metaopt.core.sizes import bytes_of

    theta = problem.init_theta(jax.random.key(0))
    state = jax.eval_shape(problem.init, theta, data, 2, jax.random.key(1))
    flops = flops_in(problem.step, theta, state, data)
    return {"flops_per_step": flops, "state_bytes_per_step": 2.0 * bytes_of(state)}


def yardsticks():
    """``{name: () -> rate}``: GFLOP/s of a 2048^3 product and GB/s of a 256 MB copy, float32."""
    import jax
    import jax.numpy as jnp

    size, length = 2048, 2**26
    square, long = jnp.ones((size, size)), jnp.ones(length)
    multiply, copy = jax.jit(lambda a: a @ a), jax.jit(lambda a: a + 1)

    def rate(function, argument, amount):
        began = time.perf_counter()
        function(argument).block_until_ready()
        return amount / (time.perf_counter() - began) / 1e9

    rates = {
        "matmul_gflops": lambda: rate(multiply, square, 2 * size**3),
        "copy_gbytes": lambda: rate(copy, long, 2 * 4 * length),
    }
    for warm_up in rates.values():
        warm_up()
    return rates


def _main(order: dict[str, Any]) -> None:
    from metaopt.training.placement import prepare_jax

    prepare_jax(order["devices"])
    options = {name: order[name] for name in ("seconds", "devices")}
    options |= {"profile": order.get("profile"), "import_s": time.time() - order["began"]}
    print(json.dumps(time_case((cases() | task_cases())[order["case"]], **options)))


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
