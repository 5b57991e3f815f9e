"""Suites: fixed lists of tasks, so that one number of one optimizer can stand beside another's.

What others judge by needs downloads and weeks. Each task here stands in for one of theirs, of the
same kind and as small as two CPU cores can train in minutes, on data that is embedded.
"""

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from metaopt.config.components import make_task
from metaopt.config.registry import choose
from metaopt.core.sizes import flops_of
from metaopt.evaluation.baselines import RATES, baseline_of


class Suite(NamedTuple):
    """A list of tasks.

    Attributes:
      about: what it stands for, in a line.
      tasks: label, as an evaluation calls a task -> what it stands in for.
      num_steps: T, inner steps of a run.
      seeds: runs of each optimizer and rate.
    """

    about: str
    tasks: Mapping[str, str]
    num_steps: int
    seeds: int


SUITES: dict[str, Suite] = {
    "meta_train_4": Suite(
        "stand-ins for the four tasks on which Celo, Celo2 and ELO are meta-trained",
        {
            "image_mlp:batch_size=64": "MLP 64-32-10 on MNIST of 8x8",
            "signal_mlp:hidden=[32]:batch_size=64": "the same on Fashion-MNIST",
            "table_mlp:dataset=wine:batch_size=64": "the same on CIFAR-10",
            "table_mlp:dataset=breast_cancer:batch_size=64": "the same on SVHN",
        },
        num_steps=2000,
        seeds=3,
    ),
    "held_out": Suite(
        "kinds of tasks that no optimizer shipped here was meta-trained on",
        {
            "digits_cnn": "a small convolutional network",
            "digits_autoencoder": "an autoencoder",
            "diabetes_mlp": "a regression",
            "digits_vae_64": "a variational autoencoder",
            "digits_mlp_128x128_batch_norm": "a wider network with batch norm",
            "digits_mlp_128x128_dropout_50": "a wider network with dropout",
            "signal_cnn_16x16": "convolutions on signals",
            "quadratic_ill": "an ill-conditioned bowl",
        },
        num_steps=1000,
        seeds=3,
    ),
    "celo17_small": Suite(
        "stand-ins for Celo's 17 held-out tasks, as far as there are families for them",
        {
            "digits_mlp_128x128": "MLP 128-128 on Fashion-MNIST",
            "digits_mlp_128x128x128_tanh:norm=layer": "MLP with layer norm and tanh on CIFAR-10",
            "digits_cnn:channels=32:batch_size=128": "convolutions on CIFAR-10",
            "signal_cnn_32x32x32": "convolutions on CIFAR-100",
            "digits_autoencoder_128x32x128": "autoencoder 128-32-128 on MNIST",
            "digits_vae_128x128": "autoencoder 128-32-128 on CIFAR-10",
        },
        num_steps=2000,
        seeds=3,
    ),
}
"""Name -> suite. To add one: an entry here."""


SECONDS_TO_COMPILE = 5.0
"""A trial, about."""

SHARE = 0.15
"""Of the speed of a large product, what inner training on several seeds at once reaches; a rough
one, by which sweeps of the zoo's members took 0.5 to 2.3 times as long as was said."""


def preview(
    name: str,
    optimizers: int,
    baselines: Sequence[str],
    num_steps: int | None = None,
    seeds: int | None = None,
) -> str:
    """What a suite will take on this machine, in a sentence, before anything of it runs.

    Args:
      name: of the suite.
      optimizers: how many learned ones.
      baselines: by name.
      num_steps, seeds: instead of the suite's.

    Raises:
      UserError: for an unknown suite or baseline.
    """
    suite = choose("suite", name, SUITES)
    for one in baselines:
        baseline_of(one)
    steps = suite.num_steps if num_steps is None else num_steps
    runs = suite.seeds if seeds is None else seeds
    thetas = optimizers + len(baselines) * len(RATES)
    flops = sum(flops_of(make_task(label)) for label in suite.tasks) * thetas * runs * steps
    trials = len(suite.tasks) * (optimizers + len(baselines))
    seconds = flops / (SHARE * product_speed()) + trials * SECONDS_TO_COMPILE
    minutes = max(1, round(seconds / 60))
    return (
        f"{name}: {suite.about}. {len(suite.tasks)} tasks, {trials} trials, {thetas * runs:,} runs "
        f"of {steps:,} steps of each task: about {minutes:,} minute{'s' * (minutes > 1)} here."
    )


def product_speed(size: int = 1024) -> float:
    """FLOP/s of a float32 product of two square matrices, the best of five."""
    a = jnp.ones((size, size), jnp.float32)
    product, times = jax.jit(jnp.matmul), []
    jax.block_until_ready(product(a, a))
    for _ in range(5):
        began = time.perf_counter()
        jax.block_until_ready(product(a, a))
        times.append(time.perf_counter() - began)
    return 2 * size**3 / min(times)
