"""Data sets that are prepared on disk."""

import pytest

from metaopt import UserError
from metaopt.tasks.datasets import tabular
from metaopt.tasks.sklearn_builder import Sklearn


@pytest.fixture
def failing_once(monkeypatch):
    """Preparing fails at its last step as often as given, with or without data being there."""

    def fail(times, is_there):
        prepare, left = Sklearn.download_and_prepare, [times]

        def failing(self):
            if left[0]:
                left[0] -= 1
                if is_there:
                    prepare(self)
                raise OSError(f"{self.data_path} already exists")
            prepare(self)

        monkeypatch.setattr(Sklearn, "download_and_prepare", failing)

    return fail


def test_of_two_processes_that_prepare_data_the_slower_one_takes_the_others(failing_once, tmp_path):
    failing_once(1, is_there=True)
    assert len(tabular("iris", data_dir=str(tmp_path))["train"]["features"]) > 50


def test_a_folder_that_cannot_be_written_is_named(failing_once, tmp_path):
    failing_once(1, is_there=False)
    with pytest.raises(UserError, match="set TFDS_DATA_DIR"):
        tabular("iris", data_dir=str(tmp_path))
