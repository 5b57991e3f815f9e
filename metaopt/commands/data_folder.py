"""``--data-dir``: what commands take that may load a data set from a folder."""

import os
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "METAOPT_DATA"
"""Of the environment, which tasks read; `metaopt.tasks.image_sets` is one that does."""


@dataclass(frozen=True, kw_only=True)
class DataFolder:
    """The option, for a command's record to inherit."""

    data_dir: Path | None = None
    """A folder with a folder for each downloaded data set; what METAOPT_DATA names if not given."""


def use_data_folder(command: object) -> None:
    """Makes the folder that a command was given known to tasks, here and in child processes."""
    if isinstance(command, DataFolder) and command.data_dir is not None:
        os.environ[VARIABLE] = str(command.data_dir)
