"""``CARD.md`` of an exported optimizer: what it is, what it was measured on, how it was made."""

import inspect
import json
import shlex
from collections.abc import Mapping
from typing import Any

from metaopt.config.recipes import start_of
from metaopt.config.registry import catalogue
from metaopt.config.schema import Config, flat, from_json
from metaopt.evaluation.comparison import Interval


def to_command(config: Config, out: str | None = None) -> str:
    """The shortest `metaopt train` that runs a configuration: a recipe, and what differs from it.

    Args:
      config: the run.
      out: its directory; the command line's own choice if not given.

    Example:
      >>> import dataclasses
      >>> to_command(dataclasses.replace(catalogue("recipe")["tiny"], seed=3), out="runs/other")
      'metaopt train tiny --seed 3 --out runs/other'
    """
    wanted, estimator, choices = flat(config), config.estimator.name, []
    del wanted["estimator.name"]
    for name, recipe in catalogue("recipe").items():
        start = flat(start_of(name, estimator))
        words = ["metaopt", "train", name]
        if recipe.estimator.name != estimator:
            words += ["--estimator", estimator]
        for field in [field for field, value in wanted.items() if start[field] != value]:
            words += _flag(field, wanted[field])
        choices.append(words)
    return shlex.join([*min(choices, key=len), *(["--out", out] if out else [])])


def _flag(field: str, value: Any) -> list[str]:
    """A field as the command line takes it."""
    *groups, name = field.replace("_", "-").split(".")
    if isinstance(value, bool):
        return [f"--{'.'.join([*groups, name if value else f'no-{name}'])}"]
    values = value if isinstance(value, tuple | list) else [value]
    return [f"--{'.'.join([*groups, name])}", *map(str, values)]


def card(description: Mapping[str, Any], evaluation: Mapping[str, Any], picture: bool) -> str:
    """The card's text, Markdown.

    Args:
      description: ``config.json``.
      evaluation: ``eval.json``.
      picture: whether there is a ``curves.png``.
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

tx = metaopt.load("{name}", num_steps={trained["num_steps"]})  # an optax transformation
updates, state = tx.update(grads, tx.init(params), params, value=loss)
```

## What it is good for

{_good_for(config, description)}
{curves}
{_table(evaluation)}

## Where it does not beat Adam

{_not_better(evaluation)}

## How it was made

```bash
{to_command(config, out=f"runs/{name}")}
```

{config.estimator.name.upper()}, seed {config.seed}: {trained["outer_steps"]:,} outer steps, \
{trained["unroll_steps"]:,} unroll steps, {trained["seconds"]:,.0f} s on {description["hardware"]}.
With {versions}.
"""


NEEDS = {
    "num_steps": "the number of steps (`num_steps=`)",
    "params": "the parameters",
    "value": "the loss (`value=`)",
}


def _about(kind: Any, name: str) -> str:
    """What a factory's docstring says before its arguments."""
    text = inspect.getdoc(catalogue(kind)[name]) or ""
    return text.partition("\nArgs:")[0].partition("\nExample:")[0].replace("``", "`").strip()


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
    args = f" ({' '.join(config.task.args)})" if config.task.args else ""
    return (
        f"Runs of {steps} steps, tensors of up to {largest:,} elements, on what it was "
        f"meta-trained on, the task `{config.task.name}`{args}:\n\n"
        + "\n".join(f"> {line}".rstrip() for line in _about("task", config.task.name).splitlines())
    )


def _table(evaluation: Mapping[str, Any]) -> str:
    seeds, steps = evaluation["seeds"], evaluation["num_steps"]
    summary = evaluation["summary"]
    rows = "\n".join(
        f"| {who} | {_interval(losses['mean_loss'])} | {_interval(losses['final_loss'])} |"
        for who, losses in (
            ("Adam, tuned", summary["adam"]),
            ("this optimizer", summary["learned"]),
        )
    )
    changes = " | ".join(
        f"{100 * change['mean']:+.1f}% ± {100 * change['half_width']:.1f}%"
        for change in (summary["change"]["mean_loss"], summary["change"]["final_loss"])
    )
    return f"""Against Adam at the best of {len(evaluation["rates"])} learning rates by the number \
reported ({evaluation["rate"]:g} for the
mean, {evaluation["final_rate"]:g} for the final loss), from the same {seeds} fresh \
initialisations on the same batches, test
split, ± 95%; the last row by the differences of pairs:

| test loss | mean of {steps} steps | final |
| --- | ---: | ---: |
{rows}
| **change** | {changes} |"""


def _interval(summary: Mapping[str, float]) -> str:
    return str(Interval(summary["mean"], summary["half_width"]))


def _not_better(evaluation: Mapping[str, Any]) -> str:
    summary, curves = evaluation["summary"], evaluation["mean_curves"]
    lines = []
    for loss, what in (("mean_loss", "the mean over the run"), ("final_loss", "the final loss")):
        change = summary["change"][loss]
        if not change["mean"] < 0:
            lines.append(f"- In {what} on its own task: see the table.")
        elif not change["mean"] + change["half_width"] < 0:
            lines.append(f"- In {what} on its own task the 95% interval reaches 0.")
    # Null is a loss that was lost.
    pairs = list(zip(curves["learned"], curves["adam"], strict=True))
    worse = [
        i
        for i, (ours, adams) in enumerate(pairs, 1)
        if ours is None or (adams is not None and ours > adams)
    ]
    if worse:
        lines.append(
            f"- After {len(worse)} of {len(pairs)} steps, between step {worse[0]} and step "
            f"{worse[-1]}, its test loss is above Adam's."
        )
    lines.append(
        "- Anywhere else it has not been measured: other tasks, more or fewer steps, larger\n"
        "  tensors, other batches. `metaopt.load` warns far outside the range above."
    )
    return "\n".join(lines)
