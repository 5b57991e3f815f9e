"""The floor plan: a room imports only from rooms below it, and no two modules import each other."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from conftest import ROOT

import metaopt

FOLDERS = {"metaopt": "metaopt"} | {
    f"metaopt.{name}": name for name in ("tasks", "learned_optimizers", "checkpoints")
}

ROOMS = (
    "core", "plotting", "parallel", "estimators", "config", "integrations", "pretrained",
    "training", "evaluation", "diagnosis", "bench", "exporting", "commands",
)  # fmt: skip
"""Lowest first."""


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([package, *(p for p in parts if p != "__init__")])] = path
    return found


MODULES = modules()


def imports(path: Path) -> set[str]:
    """The modules of metaopt that a file imports anywhere in it, inside functions as well."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in MODULES else str(node.module) for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.partition(".")[0] in ("metaopt", *FOLDERS.values())}


GRAPH = {name: imports(path) for name, path in MODULES.items()}


def room(module: str) -> str:
    return module.split(".")[1] if module.count(".") else ""


@pytest.mark.parametrize("name", [name for name in MODULES if room(name) in ROOMS])
def test_a_module_imports_only_from_its_room_and_those_below(name):
    allowed = ROOMS[: ROOMS.index(room(name)) + 1]
    assert {room(target) for target in GRAPH[name]} <= set(allowed)


@pytest.mark.parametrize("name", [n for n in MODULES if room(n) in ("tasks", "learned_optimizers")])
def test_the_catalogues_use_what_is_public(name):
    """What a third party's could use as well, and nothing of each other."""
    own = ".".join(name.split(".")[:2])
    assert all(target == "metaopt" or target.startswith(own) for target in GRAPH[name])
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "metaopt":
            assert {alias.name for alias in node.names} <= set(metaopt.__all__)


def test_there_is_no_circle():
    """But for the root, which shows to users what the rooms and catalogues have."""
    inside = {name: targets - {"metaopt"} for name, targets in GRAPH.items() if name != "metaopt"}
    TopologicalSorter(inside).prepare()  # a CycleError names the modules of a circle


def test_every_module_is_in_a_room():
    assert {room(name) for name in MODULES} <= {
        "", "__main__", *ROOMS, "tasks", "learned_optimizers", "checkpoints"
    }  # fmt: skip


def test_every_room_is_installed():
    packages = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(project["tool"]["setuptools"]["packages"]) == packages
