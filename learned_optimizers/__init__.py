"""Learned optimizers. To add one: write a factory of a `metaopt.LearnedOptimizer`, name it here."""

from collections.abc import Callable

from metaopt import LearnedOptimizer, import_theta
from metaopt.learned_optimizers.adafac_mlp import adafac_mlp
from metaopt.learned_optimizers.celo import celo
from metaopt.learned_optimizers.celo2 import celo2, celo2_base, scale_by_celo2
from metaopt.learned_optimizers.gated_adam import gated_adam
from metaopt.learned_optimizers.hyperparameters import adam, sgd, sgdm
from metaopt.learned_optimizers.lstm import lstm
from metaopt.learned_optimizers.mlp import mlp
from metaopt.learned_optimizers.nn_adam import nn_adam
from metaopt.learned_optimizers.scheduled_adam import scheduled_adam
from metaopt.learned_optimizers.velo import velo

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
