"""What pages are made of beside their text: help of commands, public names, notebooks."""

import contextlib
import inspect
import io
import re
import shutil
import tempfile
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent


@event_priority(100)
def on_config(config):
    """Shows the reference's reader of source the packages as they are when installed."""
    package = shutil.copytree(ROOT / "metaopt", Path(tempfile.mkdtemp()) / "metaopt")
    for name in ("tasks", "learned_optimizers"):
        _without_homonyms(shutil.copytree(ROOT / name, package / name))
    # It would take a package that is imported by its own parent for an alias of itself.
    root = package / "__init__.py"
    lines = root.read_text().splitlines(keepends=True)
    root.write_text("".join(line for line in lines if "    from metaopt import " not in line))
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [str(package.parent)]
    return config


def _without_homonyms(folder):
    """Renames modules, since it finds no function behind a module of the same name."""
    names = "|".join(path.stem for path in folder.glob("[!_]*.py"))
    for path in folder.glob("*.py"):
        text = re.sub(
            rf"(from metaopt\.{folder.name}\.)({names}) import", r"\1_\2 import", path.read_text()
        )
        path.write_text(text)
        if not path.name.startswith("_"):
            path.rename(folder / f"_{path.name}")


@event_priority(100)  # before the plugin that renders them
def on_files(files, config):
    """The notebooks, which are at the top level of the repository."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        place = f"notebooks/{path.name}"
        files.append(File(place, str(ROOT), config.site_dir, config.use_directory_urls))
    return files


def on_page_markdown(markdown, page, config, files):
    """Fills in what pages name in double braces."""
    markdown = markdown.replace("{{ help }}", _help() if "{{ help }}" in markdown else "")
    return re.sub(r"\{\{ names (\S+) \}\}", lambda found: _names(found[1]), markdown)


def on_page_content(html, page, config, files):
    """A link from a notebook to its neighbour leads to the neighbour's page."""
    if not page.file.src_uri.endswith(".ipynb"):
        return html
    return re.sub(r'href="([\w-]+)\.ipynb"', r'href="../\1/"', html)


def public_names(module):
    """The public names of a module, ``metaopt.tasks`` or such."""
    parts = module.split(".")
    thing = import_module(parts[0])
    for part in parts[1:]:
        thing = getattr(thing, part)
    if hasattr(thing, "__all__"):
        return list(thing.__all__)
    own = lambda value: str(getattr(value, "__module__", "")).startswith(thing.__name__)
    return [n for n, value in vars(thing).items() if not n.startswith("_") and own(value)]


def _names(module):
    """A reference entry for each public function and class of a module."""
    namespace = import_module("metaopt")
    for part in module.split(".")[1:]:
        namespace = getattr(namespace, part)
    entries, values = [], []
    for name in public_names(module):
        thing = getattr(namespace, name)
        if inspect.ismodule(thing):
            continue
        if callable(thing) and getattr(thing, "__module__", "").startswith("metaopt"):
            inside = module.split(".")[-1] in ("tasks", "learned_optimizers")
            where = f"{module}.{name}" if inside else f"{thing.__module__}.{thing.__qualname__}"
            options = "\n    options: {inherited_members: true}" if is_dataclass(thing) else ""
            entries.append(f"::: {where}{options}")
        else:
            values.append(f"`{name}`")
    rest = f"\n\nBeside these: {', '.join(values)}.\n" if values else ""
    return "\n\n".join(entries) + rest


def _help():
    """What every command says with ``--help``."""
    from metaopt.commands import COMMANDS
    from metaopt.commands.main import main

    sections = []
    for name in COMMANDS:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            main([name, "--help"])
        text = re.sub(r"\x1b\[[0-9;]*m", "", said.getvalue())
        sections.append(f"## metaopt {name}\n\n```text\n{text.strip()}\n```")
    return "\n\n".join(sections)
