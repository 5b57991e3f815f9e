"""MuJoCo in JAX beside its C library, on a robot that compiles fast; real ones in tests/stress."""

import jax
import numpy as np
import pytest

from metaopt import UserError
from metaopt.tasks import ant, simulators, swimmer
from metaopt.tasks.robots import Robot

pytest.importorskip("mujoco")
pytest.importorskip("gymnasium")
pytest.importorskip("mujoco.mjx")

CART = """
<mujoco>
  <option timestep="0.02"><flag contact="disable" constraint="disable"/></option>
  <worldbody><body>
    <joint name="slide" type="slide" axis="1 0 0" damping="0.5"/>
    <geom size="0.1" mass="1"/>
    <body pos="0 0 -0.5"><joint type="hinge" axis="0 1 0"/><geom size="0.1" mass="0.3"/></body>
  </body></worldbody>
  <actuator><motor joint="slide" gear="5"/></actuator>
</mujoco>"""


@pytest.fixture(scope="module")
def cart(tmp_path_factory):
    """A cart with a pendulum that swings below it; it ends where it is 20 cm away."""
    file = tmp_path_factory.mktemp("models") / "cart.xml"
    file.write_text(CART)
    healthy = lambda positions, velocities: abs(positions[:, 0]) < 0.2
    return Robot(str(file), frames=2, fastest=1.0, alive=0.5, healthy=healthy)


def test_both_backends_are_one_robot(cart):
    """Positions, observations, rewards and ends, until each of three has ended."""
    c_library, mjx = (simulators.simulator_of(cart, name) for name in ("mujoco", "mjx"))
    keys = jax.random.split(jax.random.key(0), 3)
    actions = jax.random.uniform(jax.random.key(1), (12, 3, 1), minval=0.5)

    def path(environment):
        move = jax.vmap(environment.step)
        steps = lambda state, actions: (lambda state, reward: (state, (state, reward)))(
            *move(state, actions)
        )
        return jax.lax.scan(steps, jax.vmap(environment.reset)(keys), actions)[1]

    (ours, rewards), (theirs, others) = (jax.jit(path, static_argnums=0)(simulator.environment)
                                         for simulator in (mjx, c_library))  # fmt: skip
    ended = np.asarray(theirs.ended)
    np.testing.assert_array_equal(ours.ended, ended)
    assert 3 <= ended.sum() < 30
    before = ~np.concatenate([np.zeros_like(ended[:1]), ended[:-1]])  # the C library stops there
    rows, reference = mjx.rows(ours.physics), c_library.rows(np.asarray(theirs.physics))
    np.testing.assert_allclose(rows[before], reference[before], atol=1e-5)
    np.testing.assert_allclose(ours.observed[before], theirs.observed[before], atol=1e-5)
    np.testing.assert_allclose(rewards[before], others[before], atol=1e-4)
    assert abs(ours.observed).max() <= 1.0 < abs(rows).max()


def test_what_mjx_cannot_do_is_said(monkeypatch):
    with pytest.raises(ValueError, match="backend must be 'mujoco' or 'mjx', got 'warp'"):
        swimmer(backend="warp")
    with pytest.raises(UserError, match=r"such as ant\.xml: choose backend='mujoco'"):
        ant(backend="mjx")
    monkeypatch.setattr(simulators, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package mujoco-mjx: pip install 'metaopt\[mjx"):
        swimmer(backend="mjx")
