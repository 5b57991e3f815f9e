"""Fixed members of the families, by name: tasks of others' papers, as near as they can be here.

Sizes are those of google/learned_optimization's fixed tasks. What is on the digits, a table or
signals is embedded; of the others the data set is downloaded or has to be at hand.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from metaopt import Task
from metaopt.tasks.autoencoders import autoencoder, vae
from metaopt.tasks.image_mlp import image_mlp
from metaopt.tasks.quadratics import quadratics
from metaopt.tasks.signals import signal_cnn, signal_mlp
from metaopt.tasks.tables import table_mlp

FAMILIES: dict[Callable[..., Task], dict[str, dict[str, Any]]] = {
    image_mlp: {
        "digits_mlp_128x128": {"hidden": (128, 128)},
        "digits_mlp_128x128x128": {"hidden": (128, 128, 128)},
        "digits_mlp_128x128x128_tanh": {"hidden": (128, 128, 128), "activation": "tanh"},
        "digits_mlp_128x128_layer_norm": {"hidden": (128, 128), "norm": "layer"},
        "digits_mlp_128x128_batch_norm": {"hidden": (128, 128), "norm": "batch"},
        "digits_mlp_128x128_dropout_20": {"hidden": (128, 128), "dropout": 0.2},
        "digits_mlp_128x128_dropout_50": {"hidden": (128, 128), "dropout": 0.5},
        "digits_mlp_128x128_dropout_80": {"hidden": (128, 128), "dropout": 0.8},
        "digits_mlp_128x128_mse": {"hidden": (128, 128), "objective": "mse"},
        "fashion_mlp_8x8_32": {"dataset": "fashion_mnist"},
        "fashion_mlp_28x28_128x128": {
            "dataset": "fashion_mnist", "side": 28, "hidden": (128, 128),
        },
        "cifar_mlp_grey_8x8_32": {"dataset": "cifar10", "grey": True},
        "cifar_mlp_32x32_128x128x128": {
            "dataset": "cifar10", "side": 32, "hidden": (128, 128, 128),
        },
        "cifar_mlp_32x32_128x128x128_layer_norm_tanh": {
            "dataset": "cifar10", "side": 32, "hidden": (128, 128, 128),
            "norm": "layer", "activation": "tanh",
        },
    },
    autoencoder: {
        "digits_autoencoder_32x32x32": {},
        "digits_autoencoder_128x32x128": {"hidden": (128, 32, 128)},
        "digits_autoencoder_256x256x256": {"hidden": (256, 256, 256)},
        "fashion_autoencoder_28x28_128x32x128": {
            "dataset": "fashion_mnist", "side": 28, "hidden": (128, 32, 128),
        },
        "cifar_autoencoder_32x32_128x32x128": {
            "dataset": "cifar10", "side": 32, "hidden": (128, 32, 128),
        },
    },
    vae: {
        "digits_vae_64": {},
        "digits_vae_128x128": {"hidden": (128, 128), "latent": 32},
    },
    table_mlp: {
        "wine_mlp_32": {},
        "iris_mlp_32": {"dataset": "iris"},
        "breast_cancer_mlp_32": {"dataset": "breast_cancer"},
        "diabetes_mlp_32x32": {"dataset": "diabetes", "hidden": (32, 32)},
    },
    signal_mlp: {"signal_mlp_64": {}, "signal_mlp_128x128": {"hidden": (128, 128)}},
    signal_cnn: {"signal_cnn_16x16": {}, "signal_cnn_32x32x32": {"channels": (32, 32, 32)}},
    quadratics: {
        "quadratic_plain": {},
        "quadratic_ill": {"condition": 1000.0},
        "quadratic_noisy": {"noise": 1.0},
        "quadratic_log": {"condition": 100.0, "log": True},
        "quadratic_family": {"condition": 1000.0, "noise": 0.1, "sampled": True},
    },
}  # fmt: skip
"""Each family's members: what of its arguments they have otherwise."""


def members() -> dict[str, Callable[..., Task]]:
    """A factory for each member, whose other arguments may be given.

    Examples:
      >>> sorted(members())[0]
      'breast_cancer_mlp_32'
    """
    found: dict[str, Callable[..., Task]] = {}
    for family, of_family in FAMILIES.items():
        for name, fixed in of_family.items():
            member = partial(family, **fixed)
            said = " ".join(f"{key}={value}" for key, value in fixed.items())
            member.__doc__ = f"`{family.__name__}` {said}".strip() + "."
            found[name] = member
    return found
