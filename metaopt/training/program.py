"""The two programs of a run: the one that starts its state and the one that advances it."""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from metaopt.core import outer, resize
from metaopt.core.own_numbers import are_double, own_numbers
from metaopt.core.types import Key, MetaState, PyTree
from metaopt.parallel.processes import primary_first
from metaopt.parallel.sharding import replicate, state_shardings
from metaopt.training.experiment import Experiment


class Program(NamedTuple):
    """What runs an experiment on a mesh.

    Attributes:
      data: the problem's, on every device.
      key: the run's, on every device.
      start: jitted ``(key, data) -> MetaState``.
      steps: jitted ``(state, data, count) -> (state, metrics)``, see `metaopt.outer.make_steps`;
        the state that goes in is given up.
      like: the state's shapes with shardings.
      resize: jitted ``(state, data) -> MetaState``, of a state with another number of particles.
    """

    data: PyTree
    key: Key
    start: Any
    steps: Any
    like: MetaState
    resize: Any


def program(experiment: Experiment, mesh: Mesh, *, seed: int, at_most: int) -> Program:
    """Puts an experiment on a mesh; nothing is compiled yet.

    Args:
      experiment: its pieces.
      mesh: devices for the particles.
      seed: of everything random in the run.
      at_most: outer steps in a dispatch, at most.
    """
    estimator = experiment.estimator(mesh)
    data = replicate(primary_first(experiment.problem.data), mesh)
    key = replicate(jax.random.key(seed), mesh)

    def start(key, data):
        theta_key, run_key = jax.random.split(key)
        theta = experiment.vector.ravel(experiment.problem.init_theta(theta_key))
        return outer.init(estimator, experiment.tx, theta, data, run_key)

    shapes = jax.eval_shape(start, key, data)
    shardings = state_shardings(shapes, mesh)
    like = jax.tree.map(
        lambda shape, at: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=at),
        shapes,
        shardings,
    )
    compiled = lambda function, level, **how: jax.jit(
        function, compiler_options=_options(mesh, level), **how
    )
    steps = outer.make_steps(estimator, experiment.tx, at_most=at_most)
    return Program(
        data,
        key,
        compiled(start, 0, out_shardings=shardings),
        compiled(steps, 1, donate_argnums=0, out_shardings=(shardings, key.sharding)),
        like,
        compiled(partial(resize.resize, estimator), 0, out_shardings=shardings),
    )


def lower_and_start(program: Program, data: PyTree, begin: bool) -> tuple[Any, Future[MetaState]]:
    """The outer steps' program, lowered, while another thread compiles and runs the start.

    Args:
      program: of the run.
      data: the problem's, as the first outer step gets it.
      begin: whether there is a start to be made; where not, its result never comes.
    """
    pool = ThreadPoolExecutor(1)
    started = (
        pool.submit(own_numbers(are_double())(program.start), program.key, program.data)
        if begin
        else Future()
    )
    lowered = program.steps.lower(program.like, data, np.int32(1))
    pool.shutdown(wait=False)
    return lowered, started


def _options(mesh: Mesh, level: int) -> dict[str, Any] | None:
    """How hard XLA tries on a CPU, unless ``XLA_FLAGS`` says it.

    Level 0 for what runs once. For the outer step 1: higher ones take half as long again to
    compile, and run no faster (measured).
    """
    option = "xla_backend_optimization_level"
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return {option: level} if on_cpu and option not in os.environ.get("XLA_FLAGS", "") else None
