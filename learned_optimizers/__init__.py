"""Learned optimizers. To add one: write a factory of a `metaopt.LearnedOptimizer`, name it here."""

from collections.abc import Callable, Mapping

import jax

from learned_optimizers.adafac_mlp import adafac_mlp
from learned_optimizers.celo import celo
from learned_optimizers.celo2 import celo2, celo2_base, scale_by_celo2
from learned_optimizers.gated_adam import gated_adam
from learned_optimizers.hyperparameters import adam, sgd, sgdm
from learned_optimizers.lstm import lstm
from learned_optimizers.mlp import mlp
from learned_optimizers.nn_adam import nn_adam
from learned_optimizers.scheduled_adam import scheduled_adam
from learned_optimizers.velo import velo
from metaopt import LearnedOptimizer, Theta, choose, theta_from_public

LEARNED_OPTIMIZERS: dict[str, Callable[..., LearnedOptimizer]] = {
    "adafac_mlp": adafac_mlp,
    "adam": adam,
    "celo": celo,
    "celo2": celo2,
    "celo2_base": celo2_base,
    "gated_adam": gated_adam,
    "lstm": lstm,
    "mlp": mlp,
    "nn_adam": nn_adam,
    "scheduled_adam": scheduled_adam,
    "sgd": sgd,
    "sgdm": sgdm,
    "velo": velo,
}


def import_theta(name: str, flat: Mapping[str, jax.Array], **arguments) -> Theta:
    """Converts theta from the paths of public checkpoints to ours.

    Args:
      name: the optimizer's, as in `LEARNED_OPTIMIZERS`; ``learnable_`` in front is allowed, as
        other libraries have it.
      flat: ``{original path: array}``.
      **arguments: the optimizer's, where they are not its defaults.

    Returns:
      Theta, as the optimizer's ``init`` makes it, with these values.

    Raises:
      ValueError: for an unknown optimizer, or naming every missing, extra or misshapen entry.

    Example:
      >>> import numpy as np
      >>> import_theta("learnable_sgd", {"log_lr": np.float32(-3.0)})
      {'log_lr': Array(-3., dtype=float32)}
    """
    name = name.removeprefix("learnable_")
    optimizer = choose("learned optimizer", name, LEARNED_OPTIMIZERS)(**arguments)
    return theta_from_public(optimizer, flat)


__all__ = [
    "LEARNED_OPTIMIZERS",
    "adafac_mlp",
    "adam",
    "celo",
    "celo2",
    "celo2_base",
    "gated_adam",
    "import_theta",
    "mlp",
    "scale_by_celo2",
    "scheduled_adam",
    "sgd",
    "sgdm",
    "velo",
]
