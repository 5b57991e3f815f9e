"""A neural ODE that is fitted to Robertson's reactions, the standard example of a stiff system.

    dy1 = -0.04 y1 + 1e4 y2 y3,   dy3 = 3e7 y2^2,   dy2 = -dy1 - dy3,   y(0) = (1, 0, 0)

Its time scales lie nine orders of magnitude apart (Robertson 1966). In place of the true ones stand
dy1 = -r1, dy3 = r3, dy2 = r1 - r3, so that the sum of y is kept whatever r is, with
r = 0.04 (x + n(x)), where n is a network and x is y over the largest value of each: it starts as
reactions of the first order, A -> B -> C. An implicit solver (diffrax: Kidger 2022, arXiv
2202.02435) goes from one measurement to the next. After the problems of Hazelden et al. 2023
(arXiv 2311.10869), of which the abstract is public; network, times and loss are ours.
"""

from importlib.util import find_spec
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from metaopt import PyTree, UnrolledProblem, UserError
from metaopt.tasks.policies import policy
from metaopt.tasks.supervised import positive

SLOW, FAST, BACK = 0.04, 3e7, 1e4
FIRST, LAST = 1e-5, 1e5
"""Times of the first and the last measurement, which lie evenly in their logarithm."""
POINTS = 512
"""Of the true path, between which is interpolated in the logarithm of time."""
SCALES = (1.0, 3.65e-5, 1.0)
"""The largest value of each y."""


class OdeState(NamedTuple):
    """Attributes: ``y`` float32 ``[3]``; ``step`` and ``horizon`` int32 scalars."""

    y: jax.Array
    step: jax.Array
    horizon: jax.Array


def neural_ode_robertson(
    *, hidden: tuple[int, ...] = (5, 5), solver_steps: int = 64
) -> UnrolledProblem:
    """Learn the two rates of Robertson's reactions from its path, measured at T times.

    L_t is the mean over y1, y2 and y3 of their distance from the path at time t, over the largest
    value of each; a solver that gives up counts as 10. Needs ``metaopt[ode]``.

    Args:
      hidden: widths of the network's hidden layers, with tanh.
      solver_steps: of the implicit solver from one measurement to the next, at most.

    Raises:
      ValueError: for a size below 1.
      UserError: where diffrax is not installed; at its first step over several devices.
    """
    positive(solver_steps=solver_steps)
    if find_spec("diffrax") is None:
        raise UserError("neural_ode_robertson needs diffrax: pip install 'metaopt[ode]'.")
    import diffrax
    import optimistix

    network = policy(3, 2, hidden=hidden)
    scales = jnp.array(SCALES, jnp.float32)
    grow = float(np.log(LAST / FIRST))

    def derivative(t, x, theta):
        first, third = SLOW * (x[:2] + network.outputs(theta, x))
        return jnp.stack([-first, first - third, third]) / scales

    def measured_at(i, horizon):
        """The time of measurement i of so many; 0 of the one before the first."""
        part = (i - 1).astype(jnp.float32) / jnp.maximum(horizon - 1, 1).astype(jnp.float32)
        return jnp.where(i == 0, 0.0, FIRST * jnp.exp(grow * part)), part

    def step(theta, state, data):
        if jax.sharding.get_abstract_mesh().size > 1:
            raise UserError(
                "neural_ode_robertson runs on one device, because diffrax does not work within "
                "jax.shard_map: give --devices 1."
            )
        before, _ = measured_at(state.step, state.horizon)
        now, part = measured_at(state.step + 1, state.horizon)
        with jax.numpy_dtype_promotion("standard"):
            solved = diffrax.diffeqsolve(
                diffrax.ODETerm(derivative),
                # The cheaper chord method gives up in float32 where y comes to rest.
                diffrax.Kvaerno3(root_finder=optimistix.Newton(rtol=1e-3, atol=1e-4)),
                before,
                now,
                dt0=None,
                y0=state.y / scales,
                args=theta,
                stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-4),
                max_steps=solver_steps,
                throw=False,
            )
        y = scales * solved.ys[0]
        true = jnp.stack([jnp.interp(part, data["part"], column) for column in data["y"].T])
        loss = (jnp.abs(y - true) / scales).mean()
        loss = jnp.where(solved.result == diffrax.RESULTS.successful, loss, jnp.nan)
        return OdeState(y, state.step + 1, state.horizon), loss

    def init(theta, data, horizon, key):
        return OdeState(jnp.array([1.0, 0.0, 0.0]), jnp.int32(0), jnp.asarray(horizon, jnp.int32))

    return UnrolledProblem(
        init,
        step,
        init_theta=network.init,
        data=true_path,
        loss_cap=10.0,
        shared=cast(Any, OdeState)(y=False, step=True, horizon=True),
    )


def true_path() -> PyTree:
    """The path in float64 by SciPy's Radau: ``{"part": [512], "y": [512, 3]}`` in float32.

    ``part`` is how far along the logarithm of time a point is, from 0 to 1.

    Examples:
      >>> true_path()["y"].sum(axis=1).round(5).min()
      np.float32(1.0)
    """
    from scipy.integrate import solve_ivp

    part = np.linspace(0, 1, POINTS)
    times = np.geomspace(FIRST, LAST, POINTS)
    solved = solve_ivp(robertson, (0, LAST), (1.0, 0.0, 0.0), "Radau", times, rtol=1e-8, atol=1e-12)
    return {"part": part.astype(np.float32), "y": solved.y.T.astype(np.float32)}


def robertson(t: float, y: np.ndarray) -> np.ndarray:
    """The true derivative of y ``[3]``, in 1/s.

    Examples:
      >>> robertson(0.0, np.array([1.0, 0.0, 0.0])).tolist()
      [-0.04, 0.04, 0.0]
    """
    first, third = SLOW * y[0] - BACK * y[1] * y[2], FAST * y[1] ** 2
    return np.array([-first, first - third, third])
