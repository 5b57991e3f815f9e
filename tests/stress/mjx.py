"""Robots in MJX beside MuJoCo's C library, from many starts; and a run of them on 1 and 2 devices.

    python tests/stress/mjx.py

Compiling takes a minute for each robot. For every robot: how far apart the positions (qpos) are
after 20 steps under the same random actions.
"""

import os

import jax
import numpy as np

from metaopt.estimators import nres
from metaopt.parallel.sharding import particle_mesh
from metaopt.tasks import PROBLEMS, robots, simulators

STEPS, STARTS = 20, 100
LIMITS = {"swimmer": 1e-5, "half_cheetah": 1e-3, "hopper": 1e-3, "walker2d": 1e-3}
"""Of the median over starts: a contact that comes a step later is another path."""


def distances(robot: robots.Robot) -> np.ndarray:
    """The largest difference of any position after the steps, of each start ``[n]``, sorted."""

    def path(environment):
        def run(key):
            shape = (STEPS, environment.outputs)
            actions = jax.random.uniform(jax.random.fold_in(key, 1), shape, minval=-1.0)
            return jax.lax.scan(environment.step, environment.reset(key), actions)[0]

        return jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), STARTS))

    made = [simulators.simulator_of(robot, backend) for backend in ("mujoco", "mjx")]
    ends = [path(simulator.environment) for simulator in made]
    both = ~np.asarray(ends[0].ended)  # the C library stops where a robot has fallen
    rows = [m.rows(np.asarray(e.physics)) for m, e in zip(made, ends, strict=True)]
    positions = slice(1, 1 + simulators.physics_of(robot).model.nq)
    return np.sort(np.abs(rows[0] - rows[1])[both, positions].max(axis=1))


def gradients(name: str) -> list[np.ndarray]:
    """An estimate of the swimmer's gradient on one device and on two."""
    problem = PROBLEMS[name](backend="mjx", test_episodes=1)
    theta, found = problem.init_theta(jax.random.key(0)), []
    for mesh in (None, particle_mesh(2)):
        estimator = nres(problem, particles=4, horizon=8, window=4, sigma=0.3, mesh=mesh)
        state = jax.jit(estimator.init)(theta, (), jax.random.key(1))
        estimate, _ = jax.jit(estimator.estimate)(theta, state, (), jax.random.key(2))
        found.append(np.asarray(estimate.grad["layer_0"]["kernel"]))
    return found


if __name__ == "__main__":
    os.environ.setdefault("NPROC", "16")  # both before JAX starts
    jax.config.update("jax_num_cpu_devices", 2)
    for name, limit in LIMITS.items():
        apart = distances(getattr(robots, name.upper()))
        quantiles = [float(np.quantile(apart, q)) for q in (0.5, 0.9, 1.0)]
        print(f"{name}: median {quantiles[0]:.1e}, 90% {quantiles[1]:.1e}, most {quantiles[2]:.1e}"
              f" of {len(apart)} starts", flush=True)  # fmt: skip
        if quantiles[0] > limit:
            raise SystemExit(f"{name}: the median is above {limit}")
    one, two = gradients("swimmer")
    np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-5)
    print("swimmer: one estimate on 1 and on 2 devices")
