"""Meta-train learned optimizers with Noise-Reuse Evolution Strategies in JAX, and use them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metaopt import estimators, learned_optimizers, plotting, tasks
    from metaopt.config.components import make_optimizer, make_task
    from metaopt.config.recipes import recipe
    from metaopt.config.registry import catalogue, choose
    from metaopt.config.schema import (
        Component,
        Config,
        EvaluationConfig,
        OuterConfig,
        SteinConfig,
    )
    from metaopt.core import inner, outer
    from metaopt.core.arithmetic import flops_of
    from metaopt.core.data_stream import Stream, shuffled_rows
    from metaopt.core.errors import UserError
    from metaopt.core.factories import factories
    from metaopt.core.metric import Metric
    from metaopt.core.running import Observations, RunningStatistics
    from metaopt.core.theta import flatten_theta, unflatten_theta
    from metaopt.core.types import (
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
    from metaopt.core.unroll import unroll
    from metaopt.evaluation.evaluate import evaluate
    from metaopt.evaluation.run_report import report
    from metaopt.exporting.export import export
    from metaopt.integrations.ask_tell import AskTell, as_ask_tell
    from metaopt.integrations.linen import apply_gradients
    from metaopt.pretrained.importer import import_theta
    from metaopt.pretrained.load import OutsideTrainedRange, load
    from metaopt.pretrained.shipped import shipped
    from metaopt.training.metrics import read_metrics
    from metaopt.training.plots import plot_metrics
    from metaopt.training.run import Run, load_theta, train
    from metaopt.training.sweep import compare

__version__ = "0.2.0.dev0"

__all__ = [
    "AskTell",
    "Component",
    "Config",
    "Estimate",
    "EvaluationConfig",
    "GradientEstimator",
    "Key",
    "LearnedOptimizer",
    "MetaState",
    "Metric",
    "Observations",
    "OuterConfig",
    "OutsideTrainedRange",
    "PyTree",
    "Run",
    "RunningStatistics",
    "SteinConfig",
    "Stream",
    "Task",
    "Theta",
    "UnrolledProblem",
    "UserError",
    "apply_gradients",
    "as_ask_tell",
    "catalogue",
    "choose",
    "compare",
    "estimators",
    "evaluate",
    "export",
    "factories",
    "flatten_theta",
    "flops_of",
    "import_theta",
    "inner",
    "learned_optimizers",
    "load",
    "load_theta",
    "make_optimizer",
    "make_task",
    "outer",
    "plot_metrics",
    "plotting",
    "read_metrics",
    "recipe",
    "report",
    "shipped",
    "shuffled_rows",
    "tasks",
    "train",
    "unflatten_theta",
    "unroll",
]

_LATER = {
    "AskTell": "metaopt.integrations.ask_tell:AskTell",
    "Component": "metaopt.config.schema:Component",
    "Config": "metaopt.config.schema:Config",
    "Estimate": "metaopt.core.types:Estimate",
    "EvaluationConfig": "metaopt.config.schema:EvaluationConfig",
    "GradientEstimator": "metaopt.core.types:GradientEstimator",
    "Key": "metaopt.core.types:Key",
    "LearnedOptimizer": "metaopt.core.types:LearnedOptimizer",
    "MetaState": "metaopt.core.types:MetaState",
    "Metric": "metaopt.core.metric:Metric",
    "Observations": "metaopt.core.running:Observations",
    "OuterConfig": "metaopt.config.schema:OuterConfig",
    "OutsideTrainedRange": "metaopt.pretrained.load:OutsideTrainedRange",
    "PyTree": "metaopt.core.types:PyTree",
    "Run": "metaopt.training.run:Run",
    "RunningStatistics": "metaopt.core.running:RunningStatistics",
    "SteinConfig": "metaopt.config.schema:SteinConfig",
    "Stream": "metaopt.core.data_stream:Stream",
    "Task": "metaopt.core.types:Task",
    "Theta": "metaopt.core.types:Theta",
    "UnrolledProblem": "metaopt.core.types:UnrolledProblem",
    "UserError": "metaopt.core.errors:UserError",
    "apply_gradients": "metaopt.integrations.linen:apply_gradients",
    "as_ask_tell": "metaopt.integrations.ask_tell:as_ask_tell",
    "catalogue": "metaopt.config.registry:catalogue",
    "choose": "metaopt.config.registry:choose",
    "compare": "metaopt.training.sweep:compare",
    "estimators": "metaopt.estimators",
    "evaluate": "metaopt.evaluation.evaluate:evaluate",
    "export": "metaopt.exporting.export:export",
    "factories": "metaopt.core.factories:factories",
    "flatten_theta": "metaopt.core.theta:flatten_theta",
    "flops_of": "metaopt.core.arithmetic:flops_of",
    "import_theta": "metaopt.pretrained.importer:import_theta",
    "inner": "metaopt.core.inner",
    "learned_optimizers": "metaopt.learned_optimizers",
    "load": "metaopt.pretrained.load:load",
    "load_theta": "metaopt.training.run:load_theta",
    "make_optimizer": "metaopt.config.components:make_optimizer",
    "make_task": "metaopt.config.components:make_task",
    "outer": "metaopt.core.outer",
    "plot_metrics": "metaopt.training.plots:plot_metrics",
    "plotting": "metaopt.plotting",
    "read_metrics": "metaopt.training.metrics:read_metrics",
    "recipe": "metaopt.config.recipes:recipe",
    "report": "metaopt.evaluation.run_report:report",
    "shipped": "metaopt.pretrained.shipped:shipped",
    "shuffled_rows": "metaopt.core.data_stream:shuffled_rows",
    "tasks": "metaopt.tasks",
    "train": "metaopt.training.run:train",
    "unflatten_theta": "metaopt.core.theta:unflatten_theta",
    "unroll": "metaopt.core.unroll:unroll",
}
"""Where each public name is: imported when it is first asked for, so that the command line can say
something before JAX is there."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'metaopt' has no attribute {name!r}")
    module, _, inside = _LATER[name].partition(":")
    found = import_module(module)
    return globals().setdefault(name, getattr(found, inside) if inside else found)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
