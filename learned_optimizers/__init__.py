"""Learned optimizers. To add one: write a factory of a `LearnedOptimizer`, import it here."""

from metaopt import LearnedOptimizer, factories
from metaopt import import_theta as import_theta
from metaopt.learned_optimizers.adafac_mlp import adafac_mlp as adafac_mlp
from metaopt.learned_optimizers.celo import celo as celo
from metaopt.learned_optimizers.celo2 import celo2 as celo2
from metaopt.learned_optimizers.celo2 import celo2_base as celo2_base
from metaopt.learned_optimizers.celo2 import scale_by_celo2 as scale_by_celo2
from metaopt.learned_optimizers.fractional import fractional as fractional
from metaopt.learned_optimizers.gated_adam import gated_adam as gated_adam
from metaopt.learned_optimizers.gated_muon import gated_muon as gated_muon
from metaopt.learned_optimizers.hyperparameters import adam as adam
from metaopt.learned_optimizers.hyperparameters import inverse_time_sgdm as inverse_time_sgdm
from metaopt.learned_optimizers.hyperparameters import sgd as sgd
from metaopt.learned_optimizers.hyperparameters import sgdm as sgdm
from metaopt.learned_optimizers.lstm import lstm as lstm
from metaopt.learned_optimizers.mlp import mlp as mlp
from metaopt.learned_optimizers.nn_adam import nn_adam as nn_adam
from metaopt.learned_optimizers.scheduled_adam import scheduled_adam as scheduled_adam
from metaopt.learned_optimizers.velo import velo as velo

LEARNED_OPTIMIZERS = factories(globals(), LearnedOptimizer)
