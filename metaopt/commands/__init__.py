"""The subcommands, a file each: a record of options; calling it runs it and gives the exit code.

To add one: write the record, name it here. What it needs is imported when it runs, so that help
and errors are quick.
"""

from typing import Any

from tyro import MISSING

from metaopt.commands.bench import Bench
from metaopt.commands.compare import Compare
from metaopt.commands.diagnose import Diagnose
from metaopt.commands.evaluate import Evaluate
from metaopt.commands.export import Export
from metaopt.commands.import_public import Import
from metaopt.commands.launch import Launch
from metaopt.commands.list_all import List
from metaopt.commands.train import Train
from metaopt.config.schema import Config

COMMANDS: dict[str, Any] = {
    "train": Train(Config()),
    "evaluate": Evaluate(MISSING),
    "compare": Compare(MISSING),
    "diagnose": Diagnose(),
    "bench": Bench(),
    "launch": Launch(MISSING),
    "import": Import(MISSING, MISSING, MISSING),
    "export": Export(MISSING, MISSING),
    "list": List(),
}
"""Each with its defaults; what has none is missing."""
