"""What is public: documented, typed, light to import, and all that notebooks and documents use."""

import ast
import inspect
import json
import re
import subprocess
import sys
from importlib import import_module

import pytest
from conftest import ROOT

import metaopt

NAMESPACES = (
    "metaopt", "metaopt.estimators", "metaopt.tasks", "metaopt.learned_optimizers",
    "metaopt.plotting", "metaopt.inner", "metaopt.outer",
)  # fmt: skip
"""Everything that people import is a name in one of these."""


def namespace(name):
    return getattr(metaopt, name.partition(".")[2]) if "." in name else metaopt


def public(name):
    """The public names of a namespace."""
    module = namespace(name)
    if hasattr(module, "__all__"):
        return list(module.__all__)
    defined = lambda thing: getattr(thing, "__module__", "").startswith("metaopt")
    return [n for n, thing in vars(module).items() if not n.startswith("_") and defined(thing)]


def things():
    """The documented things of every namespace."""
    for name in NAMESPACES:
        for one in public(name):
            thing = getattr(namespace(name), one)
            if inspect.isfunction(thing) or inspect.isclass(thing) or inspect.ismodule(thing):
                yield pytest.param(thing, id=f"{name}.{one}")


@pytest.mark.parametrize("thing", [*things()])
def test_it_is_documented_and_typed(thing):
    assert inspect.getdoc(thing)
    if inspect.isfunction(thing):
        signature = inspect.signature(thing)
        untyped = [p.name for p in signature.parameters.values() if p.annotation is p.empty]
        assert not untyped and signature.return_annotation is not signature.empty
    elif inspect.isclass(thing):
        for name, member in vars(thing).items():
            if not name.startswith("_") and (
                inspect.isfunction(member) or isinstance(member, property)
            ):
                assert inspect.getdoc(member), name


@pytest.mark.parametrize("name", NAMESPACES)
def test_the_reference_has_a_page_for_it(name):
    """On which docs/hooks.py lists every public name."""
    pages = [path.read_text() for path in (ROOT / "docs" / "reference").glob("*.md")]
    assert any(f"{{{{ names {name} }}}}" in page for page in pages)


def python_of_notebooks():
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text())["cells"]
        yield (
            path.name,
            "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"),
        )


def python_of_documents():
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for i, block in enumerate(
            re.findall(r"^ *```python\n(.*?)^ *```", path.read_text(), re.M | re.S)
        ):
            yield f"{path.name} {i}", inspect.cleandoc(block)


@pytest.mark.parametrize("name, code", [*python_of_notebooks(), *python_of_documents()])
def test_documents_import_what_is_public(name, code):
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "metaopt":
            assert node.module in NAMESPACES, node.module
            for alias in node.names:
                assert alias.name in public(node.module) or hasattr(
                    namespace(node.module), alias.name
                )
        elif isinstance(node, ast.Import):
            for alias in node.names:
                assert alias.name.partition(".")[0] != "metaopt" or alias.name in NAMESPACES


def test_what_is_imported_later_is_what_type_checkers_see():
    source = ast.parse(inspect.getsource(metaopt))
    (shown,) = [node for node in source.body if isinstance(node, ast.If)]
    seen = {
        alias.name: f"{node.module}:{alias.name}"
        for node in ast.walk(shown)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for name in metaopt.__all__:
        inside = metaopt._LATER[name]
        found = inside if ":" in inside else ":".join(inside.rsplit(".", 1))
        assert seen.pop(name) == found and getattr(metaopt, name) is not None
    assert not seen


def test_import_metaopt_is_light():
    """The root needs nothing; what it shows nothing that only files, pages and commands need."""
    heavy = [
        "matplotlib", "rich", "sklearn", "scipy", "tensorboardX", "tensorflow_datasets", "torch",
        "tyro",
    ]  # fmt: skip
    for code, absent in [("", ["jax", *heavy]), ("metaopt.load, metaopt.recipe", heavy)]:
        found = f"', '.join(m for m in {absent} if m in sys.modules)"
        code = f"import sys, metaopt; {code}; sys.exit({found} or 0)".replace("; ;", ";")
        subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        metaopt.trian  # noqa: B018
    assert "train" in dir(metaopt)


@pytest.mark.parametrize(
    "path",
    sorted(
        [
            *(ROOT / "metaopt").rglob("*.py"),
            *(ROOT / "tasks").rglob("*.py"),
            *(ROOT / "learned_optimizers").rglob("*.py"),
        ]
    ),
    ids=str,
)
def test_names_in_docstrings_lead_somewhere(path):
    for name in re.findall(r"`(metaopt(?:\.\w+)+)`", path.read_text()):
        parts = name.split(".")
        thing = metaopt
        for i, part in enumerate(parts[1:], 2):
            try:
                thing = getattr(thing, part)
            except AttributeError:
                thing = import_module(".".join(parts[:i]))
