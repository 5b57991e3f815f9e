"""The subcommands, a file each: a record of options; calling it runs it and gives the exit code.

To add one: write the record, name it here. What it needs is imported when it runs, so that help
and errors are quick.
"""

from dataclasses import MISSING as NO_DEFAULT
from dataclasses import fields
from importlib import import_module
from typing import Any

COMMANDS = {
    "train": "metaopt.commands.train:Train",
    "evaluate": "metaopt.commands.evaluate:Evaluate",
    "compare": "metaopt.commands.compare:Compare",
    "diagnose": "metaopt.commands.diagnose:Diagnose",
    "render": "metaopt.commands.render:Render",
    "bench": "metaopt.commands.bench:Bench",
    "launch": "metaopt.commands.launch:Launch",
    "import": "metaopt.commands.import_public:Import",
    "export": "metaopt.commands.export:Export",
    "list": "metaopt.commands.list_all:List",
}


def record_of(name: str) -> Any:
    """The record of a subcommand's options.

    Examples:
      >>> record_of("list").__name__
      'List'
    """
    module, _, record = COMMANDS[name].partition(":")
    return getattr(import_module(module), record)


def default_of(name: str, missing: Any) -> Any:
    """The record with its defaults, and ``missing`` where an option has none."""
    record = record_of(name)
    required = [
        f.name
        for f in fields(record)
        if f.default is NO_DEFAULT and f.default_factory is NO_DEFAULT
    ]
    return record(**dict.fromkeys(required, missing))
