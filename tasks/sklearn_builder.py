"""The TFDS builder of the small data sets that scikit-learn carries: no download.

Imported only where the data is loaded.
"""

from dataclasses import dataclass

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from sklearn import datasets

from metaopt.tasks.plain_arrays import VERSION as NUMBER

tfds.disable_progress_bar()


@dataclass(eq=False, kw_only=True)
class SetConfig(tfds.core.BuilderConfig):
    """One of the sets.

    Attributes:
      column: what its inputs are called.
      shape: of one input.
      dtype: of the inputs.
      classes: how many there are; 0 where the label is a real number.
      homepage: where it comes from.
    """

    column: str = "features"
    shape: tuple[int, ...]
    dtype: type = np.float32
    classes: int
    homepage: str


def _uci(number: int) -> str:
    return f"https://archive.ics.uci.edu/dataset/{number}"


class Sklearn(tfds.core.GeneratorBasedBuilder):
    """Small data sets from the copies that scikit-learn carries, as they are there."""

    # TFDS would look for it by the module's name, which is not where the file is in a checkout.
    pkg_dir_path = epath.Path(__file__).parent
    VERSION = tfds.core.Version(NUMBER)
    RELEASE_NOTES = {NUMBER: "Row i is in train, train, train, valid, test by i mod 5."}  # noqa: RUF012
    BUILDER_CONFIGS = [  # noqa: RUF012
        SetConfig(name="breast_cancer", shape=(30,), classes=2, homepage=_uci(17)),
        SetConfig(
            name="diabetes",
            shape=(10,),
            classes=0,
            homepage="https://www4.stat.ncsu.edu/~boos/var.select/diabetes.html",
        ),
        SetConfig(
            name="digits",
            column="image",
            shape=(64,),
            dtype=np.uint8,
            classes=10,
            homepage=_uci(80),
        ),
        SetConfig(name="iris", shape=(4,), classes=3, homepage=_uci(53)),
        SetConfig(name="wine", shape=(13,), classes=3, homepage=_uci(109)),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        chosen = self.builder_config
        label = tfds.features.ClassLabel(num_classes=chosen.classes)
        features = {
            chosen.column: tfds.features.Tensor(shape=chosen.shape, dtype=chosen.dtype),
            "label": label if chosen.classes else tfds.features.Scalar(np.float32),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), homepage=chosen.homepage
        )

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples((0, 1, 2)),
            "valid": self._generate_examples((3,)),
            "test": self._generate_examples((4,)),
        }

    def _generate_examples(self, residues):
        chosen = self.builder_config
        load = getattr(datasets, f"load_{chosen.name}")
        options = {"scaled": False} if chosen.name == "diabetes" else {}
        inputs, labels = load(return_X_y=True, **options)
        labels = labels.astype(np.int64 if chosen.classes else np.float32)
        for i, (row, label) in enumerate(zip(inputs, labels, strict=True)):
            if i % 5 in residues:
                yield i, {chosen.column: row.astype(chosen.dtype), "label": label}
