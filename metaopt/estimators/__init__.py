"""Gradient estimators of unrolled problems, and their options. To add one: import it here."""

from metaopt.core.factories import factories
from metaopt.core.types import GradientEstimator
from metaopt.estimators.es import GPES as GPES
from metaopt.estimators.es import NRES as NRES
from metaopt.estimators.es import PES as PES
from metaopt.estimators.es import ESSingle as ESSingle
from metaopt.estimators.es import FullES as FullES
from metaopt.estimators.es import es_single as es_single
from metaopt.estimators.es import full_es as full_es
from metaopt.estimators.es import gpes as gpes
from metaopt.estimators.es import nres as nres
from metaopt.estimators.es import pes as pes
from metaopt.estimators.forward_mode import Forward as Forward
from metaopt.estimators.forward_mode import forward as forward
from metaopt.estimators.options import Options as Options
from metaopt.estimators.options import takes as takes
from metaopt.estimators.reverse_mode import BPTT as BPTT
from metaopt.estimators.reverse_mode import TBPTT as TBPTT
from metaopt.estimators.reverse_mode import bptt as bptt
from metaopt.estimators.reverse_mode import tbptt as tbptt
from metaopt.estimators.stein import population_of as population_of
from metaopt.estimators.stein import stein as stein
from metaopt.estimators.truncated_es import TruncatedES as TruncatedES
from metaopt.estimators.truncated_es import truncated_es as truncated_es
from metaopt.estimators.uoro import UORO as UORO
from metaopt.estimators.uoro import uoro as uoro

# `stein` is made of another estimator and has no options of its own.
ESTIMATORS = factories(
    {name: thing for name, thing in globals().items() if hasattr(thing, "options")},
    GradientEstimator,
)
