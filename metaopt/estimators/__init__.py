"""Gradient estimators of unrolled problems. To add one: write a factory, name it here."""

from collections.abc import Callable

from metaopt.core.types import GradientEstimator
from metaopt.estimators.es import es_single, full_es, gpes, nres, pes
from metaopt.estimators.forward_mode import forward
from metaopt.estimators.reverse_mode import bptt, tbptt
from metaopt.estimators.truncated_es import truncated_es
from metaopt.estimators.uoro import uoro

ESTIMATORS: dict[str, Callable[..., GradientEstimator]] = {
    "bptt": bptt,
    "es_single": es_single,
    "forward": forward,
    "full_es": full_es,
    "gpes": gpes,
    "nres": nres,
    "pes": pes,
    "tbptt": tbptt,
    "truncated_es": truncated_es,
    "uoro": uoro,
}

__all__ = [
    "ESTIMATORS",
    "bptt",
    "es_single",
    "forward",
    "full_es",
    "gpes",
    "nres",
    "pes",
    "tbptt",
    "truncated_es",
    "uoro",
]
