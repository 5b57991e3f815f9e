"""``CARD.md`` of an exported optimizer: what it is, what it was measured on, how it was made."""

import inspect
import json
from collections.abc import Mapping
from typing import Any

from metaopt.config.registry import catalogue
from metaopt.config.schema import Config, from_json, innermost, trained_tasks
from metaopt.exporting.command import to_command
from metaopt.exporting.measured import measured, not_better
from metaopt.training.save import LIBRARIES

OWN_VERSIONS = {"python", *LIBRARIES}


def card(
    description: Mapping[str, Any], evaluation: Mapping[str, Any], picture: bool, note: str = ""
) -> str:
    """The card's text, Markdown.

    Args:
      description: ``config.json``.
      evaluation: ``eval.json``, of this version or of 0.1.
      picture: whether there is a ``curves.png``.
      note: of whoever exports it, Markdown, below what was measured.
    """
    name, trained = description["name"], description["trained_on"]
    config = from_json(json.dumps(description["recipe"]))
    versions = ", ".join(f"{name} {version}" for name, version in description["versions"].items())
    curves = "\n![Test loss against inner step](curves.png)\n" if picture else ""
    return f"""# {name}

{_about("learned optimizer", config.optimizer.name)}
{_shown("learned optimizer", config.optimizer)}, {description["meta_parameters"]:,} meta-parameters.
It needs {_listed([NEEDS[need] for need in description["needs"]]) or "nothing but gradients"}.

## Load it

```python
import metaopt

tx = metaopt.load("{name}", num_steps={trained["num_steps"]})  # or this folder's path
updates, state = tx.update(grads, tx.init(params), params, value=loss)
```

{_others(description["versions"])}## What it is good for

{_good_for(config, description)}
{curves}
{measured(evaluation)}
{_noted(note)}
## Where it does not beat tuned baselines

{not_better(evaluation)}

## How it was made

{_made(description)}
With {versions}.
"""


def _made(description: Mapping[str, Any], out: str | None = None) -> str:
    """The commands that made theta, what it started from first, and what each took."""
    config, trained = from_json(json.dumps(description["recipe"])), description["trained_on"]
    before, steps = description.get("started_from", {}), trained["outer_steps"]
    earlier = f"{_made(before, config.start_from)}\n\nThen:\n\n" if before else ""
    return (
        f"{earlier}```bash\n{to_command(config, out)}\n```\n\n"
        f"{_made_by(config)}, seed {config.seed}: {steps:,} outer step{'s' * (steps > 1)}, "
        f"{trained['unroll_steps']:,} unroll steps, {trained['seconds']:,.0f} s on "
        f"{description['hardware']}."
    )


def _noted(note: str) -> str:
    return f"\n## Beyond that\n\n{note.strip()}\n" if note else ""


NEEDS = {
    "num_steps": "the number of steps (`num_steps=`)",
    "params": "the parameters",
    "value": "the loss (`value=`)",
}


def _others(versions: Mapping[str, str]) -> str:
    """What has to be installed beside this distribution, as a paragraph; empty for nothing."""
    others = [f"{name} {made}" for name, made in versions.items() if name not in OWN_VERSIONS]
    verb = "have" if len(others) > 1 else "has"
    return f"{_listed(others)} {verb} to be installed: it was made with that.\n\n" * bool(others)


def _about(kind: Any, name: str) -> str:
    """What a factory's docstring says before its arguments."""
    factory = catalogue(kind)[name]
    text = inspect.getdoc(getattr(factory, "func", factory)) or ""  # of a family, for its member
    return text.partition("\nArgs:")[0].partition("\nExamples:")[0].replace("``", "`").strip()


def _made_by(config: Config) -> str:
    """What moved theta."""
    if config.outer.search is not None:
        return config.outer.search
    estimator, thetas = config.estimator.name.upper(), config.outer.population
    return estimator if thetas == 1 else f"{estimator}, the best of {thetas} thetas"


def _shown(kind: str, component: Any) -> str:
    arguments = f" with {' '.join(component.args)}" if component.args else ", its defaults"
    return f"\nHere: `{component.name}`{arguments}"


def _listed(things: list[str]) -> str:
    *most, last = things or [""]
    return f"{', '.join(most)} and {last}" if most else last


def _good_for(config: Config, description: Mapping[str, Any]) -> str:
    (shortest, longest), largest = (
        description["trained_range"][name] for name in ("num_steps", "largest_tensor")
    )
    steps = f"{longest:,}" if shortest == longest else f"{shortest:,} to {longest:,}"
    parts = []
    for task in trained_tasks(config):
        inner = innermost(task)
        args = f" ({' '.join(inner.args)})" if inner.args else ""
        wrapped = f", within `{task.name}`" if inner != task else ""
        text = _about("task", inner.name)
        lines = "\n".join(f"> {line}".rstrip() for line in text.splitlines())
        parts.append(f"The task `{inner.name}`{args}{wrapped}:\n\n{lines}")
    several = f"{len(parts)} tasks" if len(parts) > 1 else "one task"
    return (
        f"Runs of {steps} steps, tensors of up to {largest:,} elements, on what it was "
        f"meta-trained on: {several}.\n\n" + "\n\n".join(parts)
    )
