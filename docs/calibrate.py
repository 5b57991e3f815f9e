r"""What single numbers of an optimizer are worth, on tasks that are in no suite.

    python docs/calibrate.py runs/general_start rate/log_rate=-1.7 \
        rate/log_rate=-1.7,vector/log_rate=-1.3

Each argument after the optimizer, which is what `metaopt.load` takes, is a variant: parts of theta
and the numbers that they are set to. All variants run side by side on each task, and what was run
before comes from the cache. The last line is the interquartile mean, over tasks, of the logarithm
of the final test loss over that of the optimizer as it is: below zero is better.
"""

import argparse
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from metaopt.config.registry import choose
from metaopt.core.own_numbers import own_numbers
from metaopt.core.theta import theta_paths
from metaopt.evaluation.inputs import tasks_by_label
from metaopt.evaluation.statistics import interquartile_mean
from metaopt.evaluation.trials import measured_every, run_trial
from metaopt.pretrained import load as pretrained
from metaopt.training.outer_optimizer import held, starting_at

VALIDATION = (
    "table_mlp:dataset=wine:batch_size=64",
    "quadratic_family",
    "image_mlp:hidden=[64,64]:activation=tanh:batch_size=64",
    "signal_mlp:hidden=[32]:batch_size=32",
    "digits_mlp_128x128_layer_norm",
    "vae:hidden=[32]:latent=4:batch_size=64",
    "es_gradient:task=signal_mlp_64:pairs=4",
    "mlp_mixer:width=16:token_hidden=8:channel_hidden=32:layers=1:batch_size=32",
    "image_cnn:channels=[8,16]:batch_size=32",
    "grammar_vanilla_32",
    "transformer_lm:width=24:layers=1:batch_size=8",
)


def main() -> int:
    """Runs the variants and prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("optimizer")
    parser.add_argument("variants", nargs="+")
    parser.add_argument("--tasks", nargs="+", default=VALIDATION)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=Path("runs/calibrate"))
    given = parser.parse_args()
    optimizer, theta = pretrained.read(given.optimizer)
    variants = [(), *(tuple(variant.split(",")) for variant in given.variants)]
    for path in [path for parts in variants for path in held(parts)]:
        choose("part of theta", path, dict.fromkeys(theta_paths(theta)))
    each = [starting_at(lambda key: theta, parts)(jax.random.key(0)) for parts in variants]
    thetas = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    heads = ("task", "as it is", *given.variants)
    print("|", " | ".join(heads), "|\n|", " | ".join("---" for _ in heads), "|")
    ratios = []
    for label, task in tasks_by_label(tuple(given.tasks), {}).items():
        with own_numbers():
            trial, _ = run_trial(
                task, optimizer, thetas, task.data(), horizons=(given.steps,),
                every=measured_every(given.steps), seeds=given.seeds, cache=given.cache,
            )  # fmt: skip
        losses = np.nan_to_num(trial.curves[given.steps][..., -1, 2].mean(axis=1), nan=np.inf)
        ratios.append(np.log(losses / losses[0]))
        print(f"| `{label}` |", " | ".join(f"{x:.4g}" for x in losses), "|", flush=True)
    means = interquartile_mean(np.array(ratios).T[..., None])
    print("| mean |", " | ".join(f"{x:.3f}" for x in means), "|")
    return 0


if __name__ == "__main__":
    sys.exit(main())
