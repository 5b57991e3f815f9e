"""The TFDS builder of the 8x8 digits. Imported only where the data is loaded."""

import numpy as np
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits

tfds.disable_progress_bar()


class Digits(tfds.core.GeneratorBasedBuilder):
    """8x8 handwritten digits, from the copy that scikit-learn carries: no download."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Image i is in train, train, train, valid, test by i mod 5."}  # noqa: RUF012

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(shape=(64,), dtype=np.uint8),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            homepage="https://archive.ics.uci.edu/dataset/80",
        )

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples((0, 1, 2)),
            "valid": self._generate_examples((3,)),
            "test": self._generate_examples((4,)),
        }

    def _generate_examples(self, residues):
        images, labels = load_digits(return_X_y=True)
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            if i % 5 in residues:
                yield i, {"image": image.astype(np.uint8), "label": int(label)}
