"""The robots against gymnasium's environments, and their physics against an uninterrupted one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import after, bits, metrics

from metaopt import Component, Config, OuterConfig, UserError, load_theta, unroll
from metaopt.config.recipes import recipe
from metaopt.estimators import NRES
from metaopt.parallel.sharding import particle_mesh
from metaopt.tasks import PROBLEMS, drawing, physics, robots
from metaopt.training.experiment import build
from metaopt.training.loop import train

mujoco = pytest.importorskip("mujoco")
gymnasium = pytest.importorskip("gymnasium")

ENVIRONMENTS = {
    "ant": "Ant-v5",
    "half_cheetah": "HalfCheetah-v5",
    "hopper": "Hopper-v5",
    "humanoid": "Humanoid-v5",
    "swimmer": "Swimmer-v5",
    "walker2d": "Walker2d-v5",
}


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    """Where MuJoCo writes its log, of a model's old attributes and of what is unstable."""
    monkeypatch.chdir(tmp_path)


def robot(name):
    return getattr(robots, name.upper())


def positions_of(bits, model):
    """qpos and qvel of rows."""
    plain = physics.rows_of(bits)
    return plain[:, 1 : 1 + model.nq + model.nv]


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_steps_are_those_of_gymnasium_to_the_bit(name):
    """The same start and actions, three robots at a time, of which one is compared."""
    made = physics.physics_of(robot(name))
    rng = np.random.default_rng(0)
    noise = 0.01 * rng.standard_normal((3, made.model.nq + made.model.nv))
    noise[0] *= 0.1
    here = made.start(noise[:, : made.model.nq], noise[:, made.model.nq :])

    environment = gymnasium.make(ENVIRONMENTS[name]).unwrapped
    environment.reset(seed=0)
    mujoco.mj_resetData(environment.model, environment.data)
    start = environment.init_qpos + noise[0, : made.model.nq], noise[0, made.model.nq :]
    environment.set_state(*start)
    np.testing.assert_allclose(here.observed[0], environment._get_obs(), rtol=1e-6, atol=1e-6)

    ended, ends = np.zeros(3, bool), 0
    for _ in range(60):
        actions = rng.uniform(-1.2, 1.2, (3, made.model.nu)).astype(np.float32)
        here = made.step(here.physics, ended, actions)
        observed, reward, terminated, _, _ = environment.step(actions[0])
        np.testing.assert_array_equal(
            positions_of(here.physics, made.model)[0],
            np.concatenate([environment.data.qpos, environment.data.qvel]),
        )
        np.testing.assert_allclose(here.observed[0], observed, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(here.reward[0], reward, rtol=1e-5, atol=1e-5)
        assert here.ended[0] == terminated
        ends += terminated
        if terminated:
            break
    assert (ends > 0) == (name in ("hopper", "humanoid", "walker2d")) or name == "ant"


def test_a_return_is_that_of_gymnasium():
    """Of a linear policy, over a whole episode, computed with NumPy there."""
    problem = PROBLEMS["swimmer"](test_episodes=1)
    kernel = np.array([[1.7, -0.4], [-0.4, 2.6], [-2.9, -1.7], [0, -0.3], [-0.1, 0], [1.1, -0.9],
                       [2.7, 1.5], [-0.5, 0.3]], np.float32)  # fmt: skip
    theta, key = {"layer_0": {"kernel": jnp.asarray(kernel)}}, jax.random.key(3)
    ours = float(jax.jit(problem.test_loss)(theta, (), key))

    start = problem.init(theta, (), 1000, jax.random.split(key, 1)[0])
    environment = gymnasium.make("Swimmer-v5").unwrapped
    state = positions_of(start.physics[None], environment.model)[0]
    environment.reset()
    mujoco.mj_resetData(environment.model, environment.data)
    environment.set_state(state[:5], state[5:])
    seen, theirs = environment._get_obs(), 0.0
    for _ in range(1000):
        seen, reward, *_ = environment.step(seen.astype(np.float32) @ kernel)
        theirs += reward
    assert theirs > 300
    assert ours == pytest.approx(theirs, rel=1e-3)
    assert problem.test_metric.key == "test_return" and problem.test_metric.higher_is_better


SHORT = Config(
    problem=Component("swimmer", ("test_episodes=1",)),
    estimator=NRES(particles=4, horizon=12, window=4, sigma=0.3),
    outer=OuterConfig("sgd", 3.0, warmup_steps=0, clip_norm=None),
    outer_steps=7,
    checkpoint_every=3,
)
HOPS = dataclasses.replace(
    SHORT,
    problem=Component("hopper", ("test_episodes=1", "hidden=[4]", "normalise=true")),
    estimator=NRES(particles=4, horizon=60, window=20, sigma=0.3),
)


@pytest.mark.slow
@pytest.mark.parametrize("config", [SHORT, HOPS], ids=["swimmer", "hopper"])
def test_a_run_cut_in_pieces_ends_with_the_same_bits(tmp_path, config):
    whole = train(config, tmp_path / "whole")
    train(config, tmp_path / "cut", should_stop=after(1))
    train(config, tmp_path / "cut", should_stop=after(2))
    final = train(config, tmp_path / "cut")
    assert 0 < final.resumed_at < config.outer_steps
    for a, b in zip(bits(whole.state), bits(final.state), strict=True):
        np.testing.assert_array_equal(a, b)
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "whole")
    assert np.isfinite(metrics(tmp_path / "cut")[-1]["test_return"])
    assert jax.tree.structure(load_theta(tmp_path / "cut")) == jax.tree.structure(final.theta)


@pytest.mark.slow
def test_devices_change_nothing_but_rounding_and_particles_may_be_added(tmp_path):
    """Nor do they change what observations are normalised by."""
    normal = Component("swimmer", ("test_episodes=1", "normalise=true"))
    config = dataclasses.replace(SHORT, problem=normal)
    one = train(config, tmp_path / "one")
    two = train(config, tmp_path / "two", mesh=particle_mesh(2))
    for a, b in zip(metrics(tmp_path / "one"), metrics(tmp_path / "two"), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-4)
    kernel = lambda result: np.asarray(result.theta["layer_0"]["kernel"])
    np.testing.assert_allclose(kernel(one), kernel(two), atol=1e-3)
    assert np.abs(kernel(one)).max() > 0.01

    of = lambda result: jax.device_get(result.theta["observations"])
    ours, theirs = of(one), of(two)
    assert ours.samples == theirs.samples == pytest.approx(7 * 4 * 2 * 4)
    np.testing.assert_allclose(ours.variance, theirs.variance, rtol=1e-2)

    six = dataclasses.replace(SHORT.estimator, particles=6)
    more = dataclasses.replace(config, estimator=six, outer_steps=9)
    notices = []
    resumed = train(more, tmp_path / "two", mesh=particle_mesh(2), on_notice=notices.append)
    assert notices == ["Resuming with 6 particles where there were 4."]
    assert resumed.finished and len(resumed.state.estimator.remaining) == 6
    # Each step was observed, those of the new particles to their phases among them.
    unrolled = metrics(tmp_path / "two")[-1]["unroll_steps"]
    assert of(resumed).samples == pytest.approx(unrolled) and unrolled > 7 * 32 + 2 * 48


@pytest.mark.weekly
def test_two_processes_have_the_numbers_of_one(cli, tmp_path):
    args = ["test_episodes=1", "normalise=true"]
    options = ["--problem.args", *args, "--estimator.particles", 4, "--outer-steps", 3,
               "--estimator.horizon", 12, "--estimator.window", 4, "--quiet"]  # fmt: skip
    for name, command in (("one", []), ("two", ["launch", "-n", 2, "--"])):
        out = ["--out", tmp_path / name, *(["--devices", 1] if name == "one" else [])]
        done = cli(*command, "train", "swimmer_nres", *options, *out)
        assert done.returncode == 0, done.stderr
    ours, theirs = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    assert [row["loss"] for row in ours] == pytest.approx([r["loss"] for r in theirs], abs=1e-4)
    assert ours[-1]["test_return"] == pytest.approx(theirs[-1]["test_return"], abs=1.0)


def test_a_robot_that_has_fallen_stays_as_it_lies():
    problem = PROBLEMS["hopper"](hidden=(4,))
    theta = problem.init_theta(jax.random.key(0))
    theta["layer_1"]["bias"] += 1.0  # topples
    state, losses = unroll(problem, theta, problem.init(theta, (), 100, jax.random.key(1)), (), 100)
    lived = int(np.flatnonzero(losses)[-1]) + 1
    assert 5 < lived < 90 and not losses[lived:].any()
    assert bool(problem.done(state))
    again, loss = unroll(problem, theta, state, (), 1)
    np.testing.assert_array_equal(again.physics, state.physics)
    assert loss.tolist() == [0.0]


def test_an_unstable_simulation_is_no_reward(capfd):
    """MuJoCo begins it anew, from where a step would be a leap."""
    made = physics.physics_of(robots.SWIMMER)
    motion = made.start(np.zeros((2, 5)), np.zeros((2, 5)))
    for _ in range(3):
        motion = made.step(motion.physics, np.zeros(2, bool), np.zeros((2, 2), np.float32))
    rows = physics.rows_of(motion.physics).copy()
    rows[1, 6] = 1e30
    bad = made.step(rows.view(np.uint32).reshape(motion.physics.shape), np.zeros(2, bool),
                    np.zeros((2, 2), np.float32))  # fmt: skip
    assert np.isfinite(bad.reward[0]) and np.isnan(bad.reward[1])


@pytest.mark.parametrize("estimator", ["bptt", "tbptt", "forward", "uoro"])
def test_estimators_by_derivatives_refuse_robots(estimator):
    from metaopt.config.recipes import start_of

    with pytest.raises(UserError) as error:
        build(start_of("swimmer_nres", estimator))
    assert "differentiable" in str(error.value) and str(error.value).count(".") <= 2


def test_the_papers_constants():
    """Table of the third experiment."""
    for name, rate, steps in [("swimmer_nres", 3.0, 200), ("swimmer_pes", 1.0, 200),
                              ("swimmer_truncated_es", 30.0, 200), ("swimmer_full_es", 1.0, 200),
                              ("half_cheetah_nres", 3e-5, 1000)]:  # fmt: skip
        config = recipe(name)
        assert (config.outer.optimizer, config.outer.learning_rate) == ("sgd", rate)
        assert config.outer_steps == steps and config.estimator.horizon == 1000
    keys = jax.random.split(jax.random.key(0), 50)
    theta = jax.vmap(PROBLEMS["half_cheetah"]().init_theta)(keys)["layer_0"]["kernel"]
    assert theta.shape == (50, 17, 6)
    assert float(jnp.var(theta)) == pytest.approx(0.03 / 17, rel=0.05)
    assert not PROBLEMS["swimmer"]().init_theta(jax.random.key(0))["layer_0"]["kernel"].any()


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(physics, "find_spec", lambda name: None)
    physics.physics_of.cache_clear()
    with pytest.raises(UserError, match=r"packages mujoco and gymnasium: .*metaopt\[rl\]"):
        PROBLEMS["swimmer"]()


@pytest.mark.parametrize(
    "arguments, said",
    [({"hidden": (0,)}, "hidden must hold positive integers, got (0,)"),
     ({"test_episodes": 0}, "test_episodes must be an integer of at least 1, got 0")],
)  # fmt: skip
def test_bad_values_are_refused(arguments, said):
    with pytest.raises(ValueError) as error:
        PROBLEMS["swimmer"](**arguments)
    assert said in str(error.value)


def test_an_episode_is_drawn_until_the_robot_has_fallen():
    problem = PROBLEMS["hopper"](hidden=(4,))
    theta = problem.init_theta(jax.random.key(0))
    theta["layer_1"]["bias"] += 1.0  # topples
    try:
        frames, rate = problem.render(theta, (), jax.random.key(1), 2.0)
    except UserError as error:
        assert "found nothing to draw with here" in str(error)
        pytest.skip(str(error))
    assert rate == 25.0 and 2 < len(frames) < 20
    assert frames.shape[1:] == (240, 320, 3) and frames.dtype == np.uint8
    assert (frames[0] != frames[-1]).any()


def test_where_nothing_draws_a_sentence_says_so(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "crayons")
    with pytest.raises(
        UserError, match=r"nothing to draw with here \(tried crayons\): install EGL"
    ):
        drawing.frames_of(robots.SWIMMER, np.zeros((1, 17)))
