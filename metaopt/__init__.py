"""Meta-train learned optimizers with Noise-Reuse Evolution Strategies in JAX, and use them."""

from metaopt import estimators, inner, outer
from metaopt.errors import UserError
from metaopt.evaluation.evaluate import evaluate
from metaopt.linen import apply_gradients
from metaopt.pretrained.importer import theta_from_public
from metaopt.pretrained.load import OutsideTrainedRange
from metaopt.pretrained.load import load_optimizer as load
from metaopt.registry import catalogue, choose
from metaopt.stream import Stream, shuffled_rows
from metaopt.theta import flatten_theta, unflatten_theta
from metaopt.types import (
    Estimate,
    GradientEstimator,
    Key,
    LearnedOptimizer,
    MetaState,
    PyTree,
    Task,
    Theta,
    UnrolledProblem,
)
from metaopt.unroll import unroll

__version__ = "0.1.0"

__all__ = [
    "Estimate",
    "GradientEstimator",
    "Key",
    "LearnedOptimizer",
    "MetaState",
    "OutsideTrainedRange",
    "PyTree",
    "Stream",
    "Task",
    "Theta",
    "UnrolledProblem",
    "UserError",
    "apply_gradients",
    "catalogue",
    "choose",
    "estimators",
    "evaluate",
    "flatten_theta",
    "inner",
    "load",
    "outer",
    "shuffled_rows",
    "theta_from_public",
    "unflatten_theta",
    "unroll",
]
