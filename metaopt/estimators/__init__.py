"""Gradient estimators of unrolled problems. To add one: write a factory, import it here."""

from metaopt.core.factories import factories
from metaopt.core.types import GradientEstimator
from metaopt.estimators.es import gpes as gpes
from metaopt.estimators.family import es_single as es_single
from metaopt.estimators.family import full_es as full_es
from metaopt.estimators.family import nres as nres
from metaopt.estimators.family import pes as pes
from metaopt.estimators.forward_mode import forward as forward
from metaopt.estimators.options import BPTT as BPTT
from metaopt.estimators.options import GPES as GPES
from metaopt.estimators.options import NRES as NRES
from metaopt.estimators.options import PES as PES
from metaopt.estimators.options import TBPTT as TBPTT
from metaopt.estimators.options import UORO as UORO
from metaopt.estimators.options import ESSingle as ESSingle
from metaopt.estimators.options import Forward as Forward
from metaopt.estimators.options import FullES as FullES
from metaopt.estimators.options import Options as Options
from metaopt.estimators.options import TruncatedES as TruncatedES
from metaopt.estimators.options import takes as takes
from metaopt.estimators.reverse_mode import bptt as bptt
from metaopt.estimators.reverse_mode import tbptt as tbptt
from metaopt.estimators.truncated_es import truncated_es as truncated_es
from metaopt.estimators.uoro import uoro as uoro

ESTIMATORS = factories(globals(), GradientEstimator)

for _options in (NRES, PES, GPES, ESSingle, FullES, TruncatedES, BPTT, TBPTT, Forward, UORO):
    takes(_options)(ESTIMATORS[_options.name])
