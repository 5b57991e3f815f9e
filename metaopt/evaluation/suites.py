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
from metaopt.core.arithmetic import flops_of
from metaopt.evaluation.baselines import RATES, settings_of
from metaopt.evaluation.grids import DEPTHS, WIDTHS
from metaopt.evaluation.inputs import check_numbers
from metaopt.evaluation.suite_curves import curves_for

SUITE_BASELINES = ("adamw_cosine", "muon_cosine", "adam")
"""Those of a suite, whose curves are shipped; the first is the reference."""


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
            "digits_resnet_8x16": "a residual network with batch norm",
            "digits_mixer_32x2": "an MLP-mixer",
            "grammar_irnn_32": "a recurrent language model",
            "grammar_transformer_32": "a transformer language model",
            "digits_mlp_32_es_8": "gradients that are an evolution strategy's",
            "quadratic_ill": "an ill-conditioned bowl",
        },
        num_steps=1000,
        seeds=3,
    ),
    "celo17_small": Suite(
        "stand-ins for Celo's held-out tasks",
        {
            "digits_mlp_128x128": "MLP 128-128 on Fashion-MNIST",
            "digits_mlp_128x128x128_tanh:norm=layer:batch_size=64": "deeper, on CIFAR-10",
            "digits_cnn_16x32:batch_size=32": "convolutions on CIFAR-10",
            "digits_cnn_16x32_batch_norm:batch_size=32": "the same with batch norm",
            "digits_cnn_16x32_layer_norm:batch_size=32": "the same with layer norm",
            "signal_cnn_32x32x32:batch_size=32": "convolutions on CIFAR-100",
            "digits_vit_wide:batch_size=8": "vision transformer on CIFAR-100, wide and shallow",
            "digits_vit_deep:batch_size=8": "the same, skinny and deep",
            "grammar_transformer_20": "transformer language model of 20 channels",
            "grammar_transformer_32": "the same of 32 channels",
            "grammar_transformer_64:batch_size=4": "the same of 128 channels",
            "grammar_lstm_32:batch_size=8": "recurrent language model on LM1B",
            "grammar_gru_32:batch_size=8": "the same on Wikipedia",
            "digits_nested_20": "training a learned optimizer for 50 steps",
            "digits_autoencoder_128x32x128": "autoencoder 128-32-128 on MNIST",
            "digits_vae_128x128:batch_size=64": "autoencoder 128-32-128 on CIFAR-10",
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
    baselines: Sequence[str] | None = None,
    *,
    num_steps: int | None = None,
    seeds: int | None = None,
    rates: Sequence[float] = RATES,
    tune: Sequence[str] = ("rate",),
    grid: bool = False,
    anew: bool = False,
) -> str:
    """What a suite will take on this machine, in a sentence, before anything of it runs.

    Args:
      name: of the suite.
      optimizers: how many learned ones.
      baselines, num_steps, seeds, rates, tune, grid, anew: as in `metaopt.evaluate`.

    Raises:
      UserError: for an unknown suite or baseline, too few seeds, or rates that are none.
    """
    suite = choose("suite", name, SUITES)
    baselines = SUITE_BASELINES if baselines is None else baselines
    steps = suite.num_steps if num_steps is None else num_steps
    seeds = suite.seeds if seeds is None else seeds
    check_numbers(seeds, rates)
    sweeps = {one: len(settings_of(one, rates, tune)) for one in baselines}
    shipped = () if anew else curves_for(name, steps, seeds, rates, tune).sweeps
    flops, runs = 0.0, 0
    for label in suite.tasks:
        swept = sum(size for one, size in sweeps.items() if (label, one) not in shipped)
        flops += flops_of(make_task(label)) * (optimizers + swept) * seeds * steps
        runs += (optimizers + swept) * seeds
    trials = len(suite.tasks) * (optimizers + len(sweeps))
    trials += grid * len(WIDTHS) * len(DEPTHS) * (optimizers + 1)
    minutes = (flops / (SHARE * product_speed()) + trials * SECONDS_TO_COMPILE) / 60
    known = sum((label, one) in shipped for label in suite.tasks for one in sweeps)
    of_these = f", {known} of them with shipped curves" if known else ""
    plural = "s" * (round(minutes) > 1)
    return (
        f"{name}: {suite.about}. {len(suite.tasks)} tasks, {trials} trials{of_these}, {runs:,} "
        f"runs of {steps:,} steps: about {max(1, round(minutes)):,} minute{plural} here."
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
