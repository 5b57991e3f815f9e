"""What a run is: frozen dataclasses, and their JSON form."""

import dataclasses
import itertools
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from metaopt.config.kinds import is_a, name_of
from metaopt.config.registry import find
from metaopt.core.errors import UserError
from metaopt.core.files import json_text, parse_json
from metaopt.estimators import NRES
from metaopt.estimators.options import Options


@dataclass(frozen=True)
class Component:
    """Something of a catalogue."""

    name: str
    """Its name there; `metaopt list` shows them."""
    args: tuple[str, ...] = ()
    """Its keyword arguments, each NAME=VALUE, the value in JSON: hidden=[16,16]."""


@dataclass(frozen=True)
class SteinConfig:
    """How the thetas of a population see each other; see metaopt.estimators.stein."""

    bandwidth: float | None = None
    """h of the kernel; by the median of the distances if not given."""
    repulsion: float = 1.0
    """alpha, how much they push each other apart."""
    own_gradients: bool = False
    """Let each follow its own gradient alone."""
    anneal_steps: int | None = None
    """If given, the push fades over so many outer steps."""


@dataclass(frozen=True)
class OuterConfig:
    """The outer optimizer: clipping by global norm, then one of optax's."""

    optimizer: str = "adam"
    """adam, adamw, rmsprop or sgd."""
    learning_rate: float = 1e-2
    """Peak learning rate."""
    warmup_steps: int = 20
    """Outer steps of linear warm-up from 0."""
    decay_steps: int | None = None
    """Outer step at which a cosine decay from the peak ends, at 1% of it; constant if not given."""
    drop_step: int | None = None
    """Outer step from which the learning rate is a tenth."""
    clip_norm: float | None = 1.0
    """Global norm to which the estimate is clipped; not clipped if None."""
    eps_root: float | None = None
    """Added to the second moment under the root, by adam and adamw; 0 if not given."""
    frozen: tuple[str, ...] = ()
    """Parts of theta that stay as they start, or at a number: rule, scheduler/start=0.5."""
    population: int = 1
    """Thetas, each with all the particles; several push each other apart, and the best by
    validation is what the run leaves behind."""
    stein: SteinConfig = field(default_factory=SteinConfig)
    search: str | None = None
    """Somebody else's search instead of estimator and optimizer, LIBRARY:ALGORITHM, on whole
    episodes: evosax:CMA_ES, cma:CMA, nevergrad:TBPSA, pypop7:MAES."""


@dataclass(frozen=True)
class EvaluationConfig:
    """The evaluation against tuned baselines after training."""

    seeds: int = 16
    """Inner runs for each optimizer and learning rate, at least 2; 0 leaves the evaluation out."""
    num_steps: int | None = None
    """Inner steps a run; the horizon if not given."""


@dataclass(frozen=True)
class Config:
    """A meta-training run."""

    problem: Component = Component("training")
    """What is unrolled: training (of the task with the optimizer), or one of the problems."""
    task: Component = Component("digits_mlp")
    """The inner task."""
    optimizer: Component = Component("mlp")
    """The learned optimizer."""
    mixture: tuple[str, ...] = ()
    """Further tasks to train theta on, an estimator each: NAME, or 'NAME ARGUMENT=VALUE ...'."""
    mixture_weights: tuple[float, ...] = ()
    """Of the task and of each of the mixture, in their mean; all the same if not given."""
    normalise_mixture: bool = False
    """Divide each task's meta-gradient by the running root mean square of its norm."""
    estimator: Options = field(default_factory=NRES)
    outer: OuterConfig = field(default_factory=OuterConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    start_from: str | None = None
    """Whose theta is where theta starts: what metaopt.load takes; a fresh one if not given."""
    outer_steps: int = 600
    """Updates of theta. May be raised on a run that exists."""
    seed: int = 0
    """Of everything random in the run."""
    checkpoint_every: int = 100
    """Outer steps between two checkpoints."""
    keep_checkpoints: int = 2
    """How many of the newest stay on disk."""
    log_every: int = 1
    """Outer steps between two lines of metrics."""
    test_every: int | None = None
    """Outer steps between two measurements of the problem's test metric, where it has one; it is
    measured after the last one in any case. Inner training has one where this is given: the mean
    meta-loss of an episode under theta itself."""


# Fields that change nothing of what is computed up to a given step.
FREE = (
    "outer_steps",
    "checkpoint_every",
    "keep_checkpoints",
    "evaluation",
    "test_every",
    "estimator.particles",  # what is there by then is kept as it is
)


def to_json(config: Config) -> str:
    """The configuration as readable JSON.

    Examples:
      >>> from_json(to_json(Config(seed=3))).seed
      3
    """
    return json_text(_tree(config), indent=2)


def from_json(text: str) -> Config:
    """The configuration that `to_json` wrote, in this version or in 0.1.

    Raises:
      UserError: where the text is not such JSON, naming what is wrong.
    """
    try:
        values = parse_json(text)
    except ValueError as error:
        raise UserError(f"the configuration is not JSON: {error}.") from error
    return _build(Config, values, "")


def options_of(name: str) -> type[Options]:
    """The dataclass of an estimator's options.

    Raises:
      UserError: for an unknown estimator, or one that does not say what it takes.

    Examples:
      >>> options_of("bptt").__name__
      'BPTT'
    """
    options = getattr(find("estimator", name), "options", None)
    if options is None:
        raise UserError(
            f"estimator {name!r} does not say what it takes: mark its factory with "
            "metaopt.estimators.takes(a dataclass of its options)."
        )
    return options


def mismatches(old: Config, new: Config) -> list[str]:
    """Where two configurations would compute something else: ``["seed: 0 there, 1 here"]``.

    Examples:
      >>> mismatches(Config(), Config(seed=1, outer_steps=5))
      ['seed: 0 there, 1 here']
    """
    a, b = flat(old), flat(new)
    free = lambda name: name in FREE or name.split(".")[0] in FREE
    differing = [n for n in [*b, *(a.keys() - b.keys())] if a.get(n) != b.get(n) and not free(n)]
    return [f"{name}: {a.get(name)!r} there, {b.get(name)!r} here" for name in differing]


def trained_tasks(config: Config) -> tuple[Component, ...]:
    """Every task that theta is trained on: the task, and those of the mixture.

    Examples:
      >>> [task.name for task in trained_tasks(Config(mixture=("quadratic dim=3",)))]
      ['digits_mlp', 'quadratic']
    """
    return config.task, *(component_of(text) for text in config.mixture)


def component_of(text: str) -> Component:
    """A name and its arguments from one text: divided by spaces, or by colons.

    What is divided by one may hold the other: ``augment task=digits_mlp:hidden=[8]``. Quotes keep
    spaces together.

    Raises:
      UserError: for a quote that is not closed.

    Examples:
      >>> component_of("quadratic dim=3") == component_of("quadratic:dim=3")
      True
      >>> component_of("augment task='digits_mlp hidden=[8]' rescale=tensor").args
      ('task=digits_mlp hidden=[8]', 'rescale=tensor')
    """
    if re.match(r"\S*:\w+=", text.strip()):
        name, *args = re.split(r":(?=\w+=)", text.strip())
        return Component(name, tuple(args))
    try:
        name, *args = shlex.split(text) or [""]
    except ValueError as error:
        raise UserError(f"{text!r} has a quote that is not closed.") from error
    return Component(name, tuple(args))


def short_names(tasks: Sequence[Component]) -> list[str]:
    """What a mixture's tasks are called in metrics: as the innermost one, and what it is within.

    `progress` is named only where that tells tasks apart; what is still the same is counted.

    Examples:
      >>> names = "progress task=wine_mlp_32", *2 * ("augment task=wine_mlp_32",)
      >>> short_names([component_of(name) for name in names])
      ['wine_mlp_32', 'augment_wine_mlp_32', 'augment_wine_mlp_32_2']
      >>> short_names([Component("mine"), Component("mine"), Component("mine_2")])
      ['mine', 'mine_2', 'mine_2_2']
    """
    chains = [[one.name for one in chain(task)] for task in tasks]
    brief = ["_".join(name for name in names if name != "progress") for names in chains]
    names = ["_".join(chains[i]) if brief.count(name) > 1 else name for i, name in enumerate(brief)]
    found: list[str] = []
    for name in names:  # also where a task is called as another one is counted: a, a, a_2
        numbered = (f"{name}_{n}" if n > 1 else name for n in itertools.count(1))
        found.append(next(one for one in numbered if one not in found))
    return found


def innermost(task: Component) -> Component:
    """The task that is trained in the end, where one wraps another.

    Examples:
      >>> innermost(Component("progress", ("task=wine_mlp_32:batch_size=8",)))
      Component(name='wine_mlp_32', args=('batch_size=8',))
    """
    return chain(task)[-1]


def chain(task: Component) -> list[Component]:
    """A task, the task that it wraps, and so on."""
    inner = [text.removeprefix("task=") for text in task.args if text.startswith("task=")]
    return [task, *(chain(component_of(inner[0])) if inner else ())]


PYTHONS = {"None": None, "True": True, "False": False}
"""What Python calls otherwise than JSON."""


def parse_args(args: tuple[str, ...]) -> dict[str, Any]:
    """Keyword arguments of a `Component`, from their text.

    Raises:
      UserError: where one is not of the form NAME=VALUE.

    Examples:
      >>> parse_args(("hidden=[16,8]", "activation=relu"))
      {'hidden': [16, 8], 'activation': 'relu'}
    """
    parsed: dict[str, Any] = {}
    for text in args:
        name, equals, value = text.partition("=")
        if not (equals and name.isidentifier()):
            hint = "; a list has no spaces: [8,8]" * text.endswith("]")
            raise UserError(f"arguments are written NAME=VALUE, got {text!r}{hint}.")
        try:
            parsed[name] = json.loads(value)
        except json.JSONDecodeError:
            parsed[name] = PYTHONS.get(value, value)
    return parsed


def flat(config: Config) -> dict[str, Any]:
    """A configuration's values by the names that the command line has for them.

    Examples:
      >>> flat(Config())["outer.clip_norm"]
      1.0
    """
    return _flat(_tree(config))


def _tree(config: Config) -> dict[str, Any]:
    """Nested dicts, the estimator's name among its options."""
    tree = dataclasses.asdict(config)
    tree["estimator"] = {"name": config.estimator.name} | tree["estimator"]
    return tree


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in tree.items():
        nested = isinstance(value, dict)
        flat.update(_flat(value, f"{prefix}{name}.") if nested else {prefix + name: value})
    return flat


def _build(cls, values, where):
    if not isinstance(values, dict):
        what = where.rstrip(".") or "the configuration"
        raise UserError(f"{what} must be a {cls.__name__}, or an object in JSON, got {values!r}.")
    if cls is Options:
        cls, values = _estimator(values, where)
    types = get_type_hints(cls)
    known = {f.name: types[f.name] for f in dataclasses.fields(cls)}
    if unknown := sorted(set(values) - set(known)):
        raise UserError(f"unknown field {where}{unknown[0]!r}; valid: {', '.join(sorted(known))}.")
    required = {f.name for f in dataclasses.fields(cls) if f.default is f.default_factory}
    if missing := sorted(required - set(values)):
        raise UserError(f"{where}{missing[0]} is missing.")
    built = {}
    for name, value in values.items():
        kind = known[name]
        if dataclasses.is_dataclass(kind):
            built[name] = _build(kind, value, f"{where}{name}.")
        elif is_a(value, kind):
            built[name] = tuple(value) if isinstance(value, list) else value
        else:
            raise UserError(f"{where}{name} must be {name_of(kind)}, got {value!r}.")
    return cls(**built)


def _estimator(values: dict[str, Any], where: str) -> tuple[type[Options], dict[str, Any]]:
    """The dataclass that the name asks for, and the values for its fields.

    Version 0.1 wrote the fields of all estimators: those of others are passed over where they were
    left at their defaults.
    """
    name = values.get("name", Config().estimator.name)
    if not isinstance(name, str):
        raise UserError(f"{where}name must be str, got {name!r}.")
    options = options_of(name)
    own = {f.name for f in dataclasses.fields(options)}
    stray = lambda field, value: field not in own and value == _IN_0_1.get(field, _IN_0_1)
    kept = {f: value for f, value in values.items() if f != "name" and not stray(f, value)}
    return options, kept


_IN_0_1 = {
    "window": 20,
    "sigma": 0.05,
    "final_sigma": None,
    "sigma_steps": None,
    "reuse": None,
    "stagger": "balanced",
    "first_episode": "short",
    "shaping": "raw",
}
"""The defaults, then, of what not every estimator takes."""
