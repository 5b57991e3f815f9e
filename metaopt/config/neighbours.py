"""Recipes of the paper's neighbours: docs/neighbours.md says what each reproduces."""

from typing import Any

from metaopt.config.schema import Component, Config, OuterConfig
from metaopt.estimators import BPTT, NRES, PES, TBPTT, ESSingle, FullES, TruncatedES
from metaopt.estimators.options import Options


def _neighbour(
    problem: str,
    rate: float,
    estimator: Options,
    outer_steps: int,
    *args: str,
    clip_norm: float | None = None,
    optimizer: str = "adam",
) -> Config:
    """A problem of one of the paper's neighbours; see docs/neighbours.md."""
    return Config(
        problem=Component(problem, args),
        estimator=estimator,
        outer=OuterConfig(optimizer, rate, warmup_steps=0, clip_norm=clip_norm),
        outer_steps=outer_steps,
        checkpoint_every=500,
        log_every=10,
    )


def _toy(estimator: Options) -> Config:
    """The surface that ES-Single's paper draws (arXiv 2304.11153)."""
    return _neighbour("toy_regression", 0.01, estimator, 2000)


_TOY: dict[str, Any] = {"particles": 50, "horizon": 100, "window": 10}


def _balancing(pairs: int, estimator: type[ESSingle] | type[PES], **options: Any) -> Config:
    """Influence balancing without an end: the episode is longer than the run."""
    chosen = estimator(particles=pairs, horizon=10_000, window=1, sigma=0.1, **options)
    return _neighbour("influence_balancing", 1e-4, chosen, 5000, optimizer="sgd")


def _schedule(dataset: str, estimator: Options, outer_steps: int, *problem: str) -> Config:
    """Two numbers of a schedule, learned over whole runs of an MLP with 100-100 units."""
    scale = f"time_scale={estimator.horizon}"
    return Config(
        problem=Component("training", problem),
        task=Component("image_mlp", (f"dataset={dataset}", "hidden=[100,100]", "batch_size=100")),
        optimizer=Component("inverse_time_sgdm", (scale,)),
        estimator=estimator,
        outer=OuterConfig(learning_rate=0.01, warmup_steps=0, clip_norm=None),
        outer_steps=outer_steps,
        test_every=50,
    )


_SHORT: dict[str, Any] = {"particles": 16, "horizon": 500, "window": 10, "sigma": 0.1}
_NEURONS: dict[str, Any] = {"particles": 32, "window": 50, "sigma": 0.1}
_WHOLE: dict[str, Any] = {"particles": 500, "horizon": 5000, "window": 10, "sigma": 0.1}


def _biophysical(task: str, estimator: Options, horizon: int) -> Config:
    args = (f"test_steps={horizon}",)
    return _neighbour(f"morris_lecar_{task}", 0.03, estimator, 600, *args, clip_norm=1.0)


def _robertson_ode(estimator: Options) -> Config:
    return _neighbour("neural_ode_robertson", 0.01, estimator, 600, clip_norm=1.0)


NEIGHBOURS: dict[str, Config] = {
    "toy_regression_nres": _toy(NRES(**_TOY, sigma=0.3)),
    "toy_regression_es_single": _toy(ESSingle(**_TOY, sigma=0.3)),
    "toy_regression_pes": _toy(PES(**_TOY, sigma=0.3)),
    "toy_regression_truncated_es": _toy(TruncatedES(**_TOY, sigma=0.3)),
    "toy_regression_full_es": _toy(FullES(particles=50, horizon=100, sigma=0.3)),
    "toy_regression_tbptt": _toy(TBPTT(**_TOY)),
    "toy_regression_bptt": _toy(BPTT(particles=1, horizon=100)),
    "influence_balancing_es_single": _balancing(2, ESSingle),
    "influence_balancing_pes": _balancing(2, PES, stagger="none"),
    "influence_balancing_pes_500": _balancing(500, PES, stagger="none"),
    "tune_schedule": _schedule("digits", NRES(**_SHORT), 500),
    "tune_schedule_mnist": _schedule("mnist", ESSingle(**_WHOLE), 2000),
    "tune_final_loss": _schedule("digits", NRES(**_SHORT), 500, "telescoping=true"),
    "tune_final_loss_fashion": _schedule(
        "fashion_mnist", ESSingle(**_WHOLE), 2000, "telescoping=true"
    ),
    "tune_hyperparameters": _neighbour(
        "tune_hyperparameters",
        0.01,
        NRES(particles=5, horizon=500, window=10, sigma=0.3),
        2000,
        "test_steps=500",
    ),
    "tune_hyperparameters_mnist": _neighbour(
        "tune_hyperparameters",
        0.01,
        ESSingle(particles=5, horizon=1000, window=10, sigma=0.3),
        10_000,
        "dataset=mnist",
        "side=28",
    ),
    "copy_task": _neighbour(
        "copy_task",
        0.01,
        NRES(particles=64, horizon=100, window=1, sigma=0.05),
        20_000,
        "units=16",
        "strings=10000",
        clip_norm=1.0,
    ),
    "copy_task_100": _neighbour(
        "copy_task",
        0.001,
        NRES(particles=500, horizon=100, window=1, sigma=0.01),
        100_000,
        "strings=10000",
        clip_norm=1.0,
    ),
    "morris_lecar_integration_nres": _biophysical(
        "integration", NRES(**_NEURONS, horizon=300), 300
    ),
    "morris_lecar_integration_bptt": _biophysical(
        "integration", BPTT(particles=10, horizon=300), 300
    ),
    "morris_lecar_memory_nres": _biophysical("memory", NRES(**_NEURONS, horizon=200), 200),
    "morris_lecar_memory_bptt": _biophysical("memory", BPTT(particles=10, horizon=200), 200),
    "neural_ode_robertson_nres": _robertson_ode(
        NRES(particles=16, horizon=40, window=10, sigma=0.05)
    ),
    "neural_ode_robertson_bptt": _robertson_ode(BPTT(particles=8, horizon=40)),
}
