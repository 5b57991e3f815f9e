"""Named configurations that work. To add one: a line here."""

import dataclasses
from typing import Any

from metaopt.config.neighbours import NEIGHBOURS
from metaopt.config.registry import catalogue, find
from metaopt.config.schema import Component, Config, EvaluationConfig, OuterConfig, options_of
from metaopt.estimators import BPTT, GPES, NRES, PES, TBPTT, UORO, Forward, FullES, TruncatedES
from metaopt.estimators.options import Options, changed_to


def _lorenz(
    outer_steps: int, rate: float, estimator: Options, drop_step: int | None = None
) -> Config:
    """The paper's first experiment, the constants from its authors' scripts (arXiv 2304.12180)."""
    return Config(
        problem=Component("lorenz"),
        estimator=estimator,
        outer=OuterConfig("sgd", rate, warmup_steps=0, drop_step=drop_step, clip_norm=None),
        outer_steps=outer_steps,
        checkpoint_every=500,
        test_every=100,
    )


_ZOO = (
    "digits_mlp_32",
    "signal_mlp_64",
    "breast_cancer_mlp_32",
    "digits_autoencoder_32x32x32",
    "grammar_vanilla_32",
    "grammar_transformer_32x2",
    "digits_mlp_32_es_1",
    "quadratic_family",
)
"""A member of each of eight families; no task of a suite for tests is among them."""


def _zoo(
    optimizer: Component,
    rate: float,
    sigma: float,
    outer_steps: int,
    tasks: tuple[str, ...] = _ZOO,
    frozen: tuple[str, ...] = (),
    **options: Any,
) -> Config:
    """Over several families at once; each meta-loss is progress, so that they weigh alike."""
    options = {"particles": 4, "horizon": 1000, "shortest_horizon": 100, "window": 20} | options
    return Config(
        task=Component("progress", (f"task={tasks[0]}",)),
        mixture=tuple(f"progress task={name}" for name in tasks[1:]),
        optimizer=optimizer,
        estimator=NRES(sigma=sigma, shaping="centered_rank", **options),
        outer=OuterConfig(learning_rate=rate, decay_steps=outer_steps, frozen=frozen),
        evaluation=EvaluationConfig(seeds=3),
        outer_steps=outer_steps,
    )


_ONLINE: dict[str, Any] = {
    "particles": 200,
    "horizon": 2000,
    "window": 100,
    "first_episode": "burn_in",
}
_SMOOTHED = _ONLINE | {"sigma": 0.04}


def _small(optimizer: Component, sigma: float, final_sigma: float, outer_steps: int) -> Config:
    """Over the family of small classifiers, runs of log-uniform lengths.

    Its members' losses differ by far more than theta changes them, so that ranks say more.
    """
    return Config(
        task=Component("small_mlps"),
        optimizer=optimizer,
        estimator=NRES(
            particles=64,
            shortest_horizon=50,
            sigma=sigma,
            final_sigma=final_sigma,
            sigma_steps=outer_steps,
            shaping="centered_rank",
            noise="orthogonal",
        ),
        outer=OuterConfig(learning_rate=0.05, decay_steps=outer_steps),
        evaluation=EvaluationConfig(seeds=128),
        outer_steps=outer_steps,
    )


def _policy(
    problem: str, rate: float, estimator: Options, outer_steps: int, test_every: int
) -> Config:
    """A small network as the policy of a classic control problem."""
    return Config(
        problem=Component(problem, ("hidden=[32,32]",)),
        estimator=estimator,
        outer=OuterConfig(learning_rate=rate, warmup_steps=10, decay_steps=outer_steps),
        outer_steps=outer_steps,
        test_every=test_every,
    )


_LONG: dict[str, Any] = {"particles": 16, "horizon": 500, "sigma": 0.1}


def _robot(
    problem: str, rate: float, estimator: Options, outer_steps: int, test_every: int
) -> Config:
    """The paper's third experiment: a linear policy on MuJoCo."""
    return Config(
        problem=Component(problem),
        estimator=estimator,
        outer=OuterConfig("sgd", rate, warmup_steps=0, clip_norm=None),
        outer_steps=outer_steps,
        test_every=test_every,
    )


def _swimmer(rate: float, estimator: Options) -> Config:
    return _robot("swimmer", rate, estimator, 200, 10)


def _cheetah(rate: float, estimator: Options, outer_steps: int = 1000) -> Config:
    return _robot("half_cheetah", rate, estimator, outer_steps, 50)


_SWIMMING: dict[str, Any] = {"particles": 30, "horizon": 1000, "window": 100, "sigma": 0.3}
_RUNNING: dict[str, Any] = {"particles": 300, "horizon": 1000, "window": 20, "sigma": 0.004}


def _images(task: str, rate: float, outer_steps: int, estimator: Options, outer: str) -> Config:
    """The paper's second experiment: every particle trains one and the same network.

    The test metric costs a hundredth of the unroll steps between two measurements, or less.
    """
    updates = 1000 if estimator.depth < 100 else 10
    return Config(
        task=Component(task, ("single_sequence=true",)),
        estimator=estimator,
        outer=OuterConfig(
            outer,
            rate,
            warmup_steps=0,
            clip_norm=None,
            eps_root=1e-8 if outer == "adam" else None,
        ),
        outer_steps=outer_steps,
        checkpoint_every=updates,
        test_every=updates,
    )


def _fashion(rate: float, thousands: int, estimator: Options, outer: str = "adam") -> Config:
    return _images("fashion_mlp", rate, 1000 * thousands, estimator, outer)


def _cifar(rate: float, estimator: Options) -> Config:
    return _images("cifar_cnn", rate, 20_000, estimator, "adam")


_MLP: dict[str, Any] = {"particles": 100, "horizon": 1000, "window": 1}
_CNN: dict[str, Any] = {"particles": 10, "horizon": 1000, "window": 100}
_FINE: dict[str, Any] = {"sigma": 0.01}


RECIPES: dict[str, Config] = {
    # The first light: on two CPU cores under three minutes from a cold start to the final table.
    "digits_mlp": Config(outer=OuterConfig(learning_rate=0.02, decay_steps=800), outer_steps=800),
    # The factored rule there, and meta-training over a family of tasks.
    "digits_adafac_mlp": Config(
        optimizer=Component("adafac_mlp"),
        estimator=NRES(particles=32, final_sigma=0.02, sigma_steps=1500),
        outer=OuterConfig(learning_rate=0.02, decay_steps=1500),
        outer_steps=1500,
    ),
    "small_scheduled_adam": _small(
        Component("scheduled_adam", ("learning_rate=0.01", "knots=5")), 0.3, 0.1, 800
    ),
    "small_gated_adam": _small(Component("gated_adam"), 0.2, 0.05, 1200),
    "zoo_celo2": _zoo(Component("celo2", ("learning_rate=0.005",)), 0.003, 0.03, 6000),
    "zoo_gated_muon": dataclasses.replace(
        _zoo(
            Component("gated_muon"),
            0.01,
            0.1,
            3000,
            tuple(name for name in _ZOO if name not in ("grammar_vanilla_32", "quadratic_family")),
            ("matrix/fan_in_exponent", "matrix/fan_out_exponent", "rate/schedule"),
            particles=8,
            final_sigma=0.03,
            sigma_steps=3000,
            noise="orthogonal",
        ),
        problem=Component("training", ("late=4",)),
        seed=1,
    ),
    "lorenz": _lorenz(5000, 1e-5, NRES(**_SMOOTHED)),
    "lorenz_nres": _lorenz(5000, 1e-5, NRES(**_SMOOTHED)),
    "lorenz_pes": _lorenz(10_000, 1e-5, PES(**_SMOOTHED), drop_step=1000),
    "lorenz_truncated_es": _lorenz(5000, 3e-4, TruncatedES(**_SMOOTHED)),
    "lorenz_full_es": _lorenz(2000, 3e-5, FullES(particles=10, horizon=2000, sigma=0.04)),
    "lorenz_bptt": _lorenz(1000, 1e-8, BPTT(particles=1, horizon=2000)),
    "lorenz_tbptt": _lorenz(10_000, 3e-4, TBPTT(**_ONLINE)),
    "lorenz_uoro": _lorenz(5000, 1e-13, UORO(**_ONLINE)),
    "lorenz_forward": _lorenz(5000, 1e-10, Forward(**_ONLINE)),
    # Policies; episodes of cartpole and acrobot end early, those of pendulum do not.
    "acrobot_nres": _policy("acrobot", 0.01, NRES(**_LONG, window=50), 200, 20),
    "cartpole_nres": _policy("cartpole", 0.01, NRES(**_LONG, window=20), 300, 5),
    "cartpole_full_es": _policy("cartpole", 0.1, FullES(**_LONG), 30, 1),
    "pendulum_nres": _policy(
        "pendulum", 0.01, NRES(particles=16, horizon=200, window=20, sigma=0.1), 2000, 100
    ),
    # Policies on MuJoCo.
    "swimmer_nres": _swimmer(3.0, NRES(**_SWIMMING)),
    "swimmer_pes": _swimmer(1.0, PES(**_SWIMMING)),
    "swimmer_truncated_es": _swimmer(30.0, TruncatedES(**_SWIMMING)),
    "swimmer_full_es": _swimmer(1.0, FullES(particles=3, horizon=1000, sigma=0.3)),
    "half_cheetah_nres": _cheetah(3e-5, NRES(**_RUNNING)),
    "half_cheetah_pes": _cheetah(3e-6, PES(**_RUNNING), 30_000),
    "half_cheetah_truncated_es": _cheetah(3e-5, TruncatedES(**_RUNNING)),
    "half_cheetah_full_es": _cheetah(3e-5, FullES(particles=6, horizon=1000, sigma=0.004)),
    # Learned optimizers at the paper's size, on data that is not embedded.
    "fashion_mlp_nres": _fashion(3e-4, 240, NRES(**_MLP, **_FINE)),
    "fashion_mlp_pes": _fashion(3e-4, 240, PES(**_MLP, **_FINE)),
    **{
        f"fashion_mlp_gpes_{k}": _fashion(3e-4, 240, GPES(**_MLP, **_FINE, reuse=k))
        for k in (4, 16, 64, 256)
    },
    "fashion_mlp_full_es": _fashion(3e-2, 5, FullES(particles=10, horizon=1000, **_FINE)),
    "fashion_mlp_truncated_es": _fashion(1e-3, 180, TruncatedES(**_MLP, **_FINE)),
    "fashion_mlp_bptt": _fashion(3e-4, 2, BPTT(particles=1, horizon=1000)),
    "fashion_mlp_tbptt": _fashion(1e-2, 320, TBPTT(**_MLP), "sgd"),
    "fashion_mlp_forward": _fashion(1e-5, 290, Forward(**_MLP)),
    "fashion_mlp_uoro": _fashion(3e-5, 260, UORO(**_MLP)),
    "cifar_cnn_nres": _cifar(3e-4, NRES(**_CNN, **_FINE)),
    "cifar_cnn_pes": _cifar(3e-4, PES(**_CNN, **_FINE)),
    "cifar_cnn_full_es": _cifar(1e-3, FullES(particles=1, horizon=1000, **_FINE)),
    "cifar_cnn_truncated_es": _cifar(1e-3, TruncatedES(**_CNN, **_FINE)),
    **NEIGHBOURS,
    "small_fractional": _small(Component("fractional"), 0.2, 0.05, 800),
    # The whole road in seconds, for trying things out.
    "tiny": Config(
        task=Component("quadratic"),
        optimizer=Component("sgd"),
        estimator=NRES(particles=4, horizon=8, window=2, sigma=0.1),
        outer=OuterConfig(learning_rate=0.1, warmup_steps=2),
        evaluation=EvaluationConfig(seeds=4),
        outer_steps=50,
        checkpoint_every=10,
    ),
}


def recipe(name: str) -> Config:
    """A recipe's configuration; `dataclasses.replace` changes it. Public as `metaopt.recipe`.

    Raises:
      UserError: for an unknown name, with the nearest and the valid ones.

    Examples:
      >>> recipe("tiny").estimator.particles
      4
    """
    # Those here first, so that a catalogue of somebody else's may start from one while it loads.
    return RECIPES[name] if name in RECIPES else find("recipe", name)


def start_of(name: str, estimator: str | None) -> Config:
    """What ``metaopt train NAME --estimator ESTIMATOR`` starts from.

    The recipe ``NAME_ESTIMATOR`` where there is one; else the recipe, with the values of its
    estimator's options that the other one has, too.

    Raises:
      UserError: for an unknown recipe or estimator.

    Examples:
      >>> start_of("lorenz", "pes") == recipe("lorenz_pes")
      True
      >>> start_of("tiny", "bptt").estimator
      BPTT(particles=4, horizon=8, shortest_horizon=None, growth_steps=None, ...)
    """
    config = recipe(name)
    if estimator is None or estimator == config.estimator.name:
        return config
    other = options_of(estimator)
    own = catalogue("recipe").get(f"{name}_{estimator}")
    if own is not None:
        return own
    return dataclasses.replace(config, estimator=changed_to(other, config.estimator))


def summary(config: Config) -> str:
    """A line on what a configuration trains, and how.

    Args:
      config: one that `metaopt.training.experiment.build` accepts.

    Examples:
      >>> summary(RECIPES["tiny"])
      'sgd on quadratic by nres, 4 pairs, windows of 2 of 8 inner steps'
    """
    chosen, problem = config.estimator, config.problem.name
    task = config.task
    wraps = any(arg.startswith("task=") for arg in task.args)
    names = [" ".join((task.name, *task.args)) if wraps else task.name, *config.mixture]
    tasks = ", ".join(names) if len(names) < 4 else f"{len(names)} tasks"
    what = f"{config.optimizer.name} on {tasks}" if problem == "training" else problem
    number = f"{chosen.particles} {'pair' if chosen.antithetic else 'particle'}"
    number += "s" * (chosen.particles != 1)
    if search := config.outer.search:
        return f"{what} by {search}, {2 * chosen.particles} thetas, {chosen.horizon} inner steps"
    window = f"windows of {chosen.depth} of " if chosen.depth < chosen.horizon else ""
    thetas = config.outer.population
    each = f" for each of {thetas} thetas" if thetas > 1 else ""
    return f"{what} by {chosen.name}, {number}{each}, {window}{chosen.horizon} inner steps"
