"""What `metaopt list NAME` says of every name there is."""

import inspect
from functools import partial
from io import StringIO

import pytest
from rich.console import Console

from metaopt import UserError
from metaopt.commands.explain import KINDS, explain
from metaopt.config.registry import catalogue
from metaopt.evaluation.suites import SUITES


def shown(name):
    console = Console(file=StringIO(), width=500)
    for part in explain(name):
        console.print(part, markup=False, highlight=False)
    return console.file.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_every_argument_is_shown_with_what_it_is(kind):
    """Also of a member of a family, with its own defaults."""
    for name, factory in catalogue(kind).items():
        text = shown(name)
        source = getattr(factory, "options", None) or getattr(factory, "func", factory)
        preset = factory.keywords if isinstance(factory, partial) else {}
        for argument in inspect.signature(source).parameters.values():
            rows = [line for line in text.splitlines() if line.startswith(f"  {argument.name}=")]
            assert rows, (name, argument.name)
            value, _, about = rows[0].strip().partition(" ")
            assert about.strip() or "are those of" in text, (name, argument.name)
            assert "as for" not in about, (name, argument.name)
            if isinstance(known := preset.get(argument.name, argument.default), int | str | float):
                assert value.split("=", 1)[1] == str(known).split(" ")[0], (name, argument.name)


def test_a_suite_a_recipe_and_a_trained_optimizer_are_shown():
    text = shown("held_out")
    assert all(task in text and about in text for task, about in SUITES["held_out"].tasks.items())
    assert "outer.learning-rate=0.1" in shown("tiny") and "horizon=8" in shown("tiny")
    assert "gated_adam on small_mlps" in shown("gated-adam-small")
    assert "adam, a learned optimizer" in shown("adam") and "adam, a baseline" in shown("adam")


def test_an_unknown_name_is_said():
    with pytest.raises(UserError, match="nothing is called 'digits_vitt': did you mean 'digits_vi"):
        shown("digits_vitt")
