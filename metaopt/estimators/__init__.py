"""Gradient estimators of unrolled problems. To add one: write a factory, import it here."""

from metaopt.core.factories import factories
from metaopt.core.types import GradientEstimator
from metaopt.estimators.es import gpes as gpes
from metaopt.estimators.family import es_single as es_single
from metaopt.estimators.family import full_es as full_es
from metaopt.estimators.family import nres as nres
from metaopt.estimators.family import pes as pes
from metaopt.estimators.forward_mode import forward as forward
from metaopt.estimators.reverse_mode import bptt as bptt
from metaopt.estimators.reverse_mode import tbptt as tbptt
from metaopt.estimators.truncated_es import truncated_es as truncated_es
from metaopt.estimators.uoro import uoro as uoro

ESTIMATORS = factories(globals(), GradientEstimator)
