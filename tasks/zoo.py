"""Fixed members of the families, by name: tasks of others' papers, as near as they can be here.

Sizes are those of google/learned_optimization's fixed tasks. What is on the digits, a table or
signals is embedded; of the others the data set is downloaded or has to be at hand.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from metaopt import Task
from metaopt.tasks.autoencoders import autoencoder, vae
from metaopt.tasks.convolutions import image_cnn, resnet
from metaopt.tasks.es_gradient import es_gradient
from metaopt.tasks.image_mlp import image_mlp
from metaopt.tasks.image_sources import IMAGE_SOURCES
from metaopt.tasks.language_models import rnn_lm, transformer_lm
from metaopt.tasks.nested import nested
from metaopt.tasks.patches import mlp_mixer, vit
from metaopt.tasks.quadratics import quadratics
from metaopt.tasks.signals import signal_cnn, signal_mlp
from metaopt.tasks.tables import table_mlp


def _transformer(heads: int, width: int, layers: int, batch: int, length: int) -> dict[str, int]:
    """In the order of google/learned_optimization."""
    return {
        "heads": heads, "width": width, "layers": layers, "batch_size": batch, "length": length
    }  # fmt: skip


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
        "digits_mlp_32": {},
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
    image_cnn: {
        "digits_cnn_16x32": {"batch_size": 64},
        "digits_cnn_16x32_tanh": {"activation": "tanh", "batch_size": 64},
        "digits_cnn_16x32_batch_norm": {"norm": "batch", "batch_size": 64},
        "digits_cnn_16x32_layer_norm": {"norm": "layer", "batch_size": 64},
        "digits_cnn_32x64x64": {"channels": (32, 64, 64)},
        "cifar_cnn_32x64x64": {"dataset": "cifar10", "side": 32, "channels": (32, 64, 64)},
        "cifar_cnn_32x64x64_batch_norm": {
            "dataset": "cifar10", "side": 32, "channels": (32, 64, 64), "norm": "batch",
        },
        "cifar_cnn_32x64x64_layer_norm": {
            "dataset": "cifar10", "side": 32, "channels": (32, 64, 64), "norm": "layer",
        },
        "cifar100_cnn_32x64x64": {"dataset": "cifar100", "side": 32, "channels": (32, 64, 64)},
    },
    resnet: {
        "digits_resnet_8x16": {"batch_size": 32},
        "digits_resnet_8x16x16_group_norm": {
            "channels": (8, 16, 16), "norm": "group", "batch_size": 32,
        },
        "digits_resnet_8x16x16_layer_norm": {
            "channels": (8, 16, 16), "norm": "layer", "batch_size": 32,
        },
        "cifar_resnet_18": {
            "dataset": "cifar10", "side": 32, "channels": (64, 128, 256, 512),
            "blocks": (2, 2, 2, 2),
        },
    },
    vit: {
        "digits_vit_wide": {"width": 48, "batch_size": 16},
        "digits_vit_deep": {"width": 16, "layers": 8, "batch_size": 16},
        "cifar_vit_384x6": {
            "dataset": "cifar10", "side": 32, "patch": 16, "width": 384, "heads": 6, "layers": 6,
        },
        "cifar100_vit_128x10": {
            "dataset": "cifar100", "side": 32, "patch": 16, "width": 128, "layers": 10,
        },
    },
    mlp_mixer: {"digits_mixer_32x2": {"batch_size": 32}},
    rnn_lm: {
        "grammar_vanilla_32": {"cell": "vanilla", "size": 32, "embedding": 16, "batch_size": 16},
        "grammar_irnn_32": {"cell": "irnn", "size": 32, "embedding": 16, "batch_size": 16},
        "grammar_gru_32": {"cell": "gru", "size": 32, "embedding": 16, "batch_size": 16},
        "grammar_lstm_32": {"size": 32, "embedding": 16, "batch_size": 16},
        "grammar_lstm_256": {"size": 256, "embedding": 64, "batch_size": 128},
        "king_james_lstm_256": {
            "text": "king_james", "size": 256, "embedding": 64, "batch_size": 128,
        },
    },
    transformer_lm: {
        "grammar_transformer_20": _transformer(5, 20, 1, 4, 8),
        "grammar_transformer_32": _transformer(4, 32, 1, 8, 32),
        "grammar_transformer_32x2": _transformer(4, 32, 2, 8, 8),
        "grammar_transformer_64": _transformer(4, 64, 1, 8, 32),
        "grammar_transformer_80": _transformer(5, 80, 1, 4, 64),
        "grammar_transformer_112x3": _transformer(7, 112, 3, 16, 32),
        "grammar_transformer_128": _transformer(4, 128, 1, 64, 32),
        "grammar_transformer_256x2": _transformer(4, 256, 2, 64, 64),
        "grammar_transformer_20x25": _transformer(5, 20, 25, 4, 8),
        "king_james_transformer_32": {"text": "king_james", **_transformer(4, 32, 1, 8, 32)},
    },
    es_gradient: {
        "digits_mlp_32_es_1": {"task": "image_mlp"},
        "digits_mlp_32_es_8": {"task": "image_mlp", "pairs": 8},
    },
    nested: {
        "digits_nested_20": {"task": "image_mlp hidden=[16] batch_size=32", "num_steps": 20},
        "digits_nested_50": {"num_steps": 50, "optimizer": "mlp"},
    },
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
            source = fixed.get("dataset", fixed.get("text"))
            member.needs_download = source in (*IMAGE_SOURCES, "king_james")  # type: ignore[attr-defined]
            member.__doc__ = f"`{family.__name__}` {said}".strip() + "."
            found[name] = member
    return found
