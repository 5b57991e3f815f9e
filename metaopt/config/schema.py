"""What a run is: frozen dataclasses, and their JSON form."""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

from metaopt.core.errors import UserError


@dataclass(frozen=True)
class Component:
    """Something of a catalogue."""

    name: str
    """Its name there; `metaopt list` shows them."""
    args: tuple[str, ...] = ()
    """Its keyword arguments, each NAME=VALUE, the value in JSON: hidden=[16,16]."""


@dataclass(frozen=True)
class EstimatorConfig:
    """The meta-gradient's estimator."""

    name: str = "nres"
    """Its name; `metaopt list` shows them."""
    particles: int = 16
    """N, antithetic pairs. May be changed on a run that exists."""
    horizon: int = 200
    """T, inner steps an episode."""
    shortest_horizon: int | None = None
    """If given, episodes have log-uniform lengths from this to the horizon."""
    growth_steps: int | None = None
    """If given, they grow from the one to the other over so many outer steps instead."""
    window: int = 20
    """W, inner steps between two outer steps; divides the horizon."""
    sigma: float = 0.05
    """Standard deviation of the perturbation of theta."""
    final_sigma: float | None = None
    """If given, sigma goes geometrically to this over sigma_steps outer steps."""
    sigma_steps: int | None = None
    """Outer steps after which final_sigma is reached."""
    reuse: int | None = None
    """K, inner steps for which gpes (or forward) keeps one noise: a multiple of the window."""
    stagger: Literal["balanced", "random", "none"] = "balanced"
    """How the particles' phases are spread over the horizon."""
    first_episode: Literal["short", "burn_in"] = "short"
    """How a particle gets to its phase: by a short first episode, or unrolled to it first."""
    particles_per_chunk: int | None = None
    """How many of a device's particles advance at a time; what fits if not given."""
    shaping: Literal["raw", "standardise", "centered_rank"] = "raw"
    """Of the losses' differences."""


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
    frozen: tuple[str, ...] = ()
    """Parts of theta that stay as they start, by path: rule, or scheduler/start."""


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
    normalise_mixture: bool = False
    """Divide each task's meta-gradient by the running root mean square of its norm."""
    estimator: EstimatorConfig = field(default_factory=EstimatorConfig)
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
    """Outer steps between two measurements of the problem's test loss, where it has one."""


# Fields that change nothing of what is computed up to a given step.
FREE = (
    "outer_steps",
    "checkpoint_every",
    "keep_checkpoints",
    "evaluation",
    "estimator.particles",  # what is there by then is kept as it is
)


def to_json(config: Config) -> str:
    """The configuration as readable JSON.

    Example:
      >>> from_json(to_json(Config(seed=3))).seed
      3
    """
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(text: str) -> Config:
    """The configuration that `to_json` wrote.

    Raises:
      UserError: where the text is not such JSON, naming what is wrong.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"the configuration is not JSON: {error}.") from error
    return _build(Config, values, "")


def mismatches(old: Config, new: Config) -> list[str]:
    """Where two configurations would compute something else: ``["seed: 0 there, 1 here"]``.

    Example:
      >>> mismatches(Config(), Config(seed=1, outer_steps=5))
      ['seed: 0 there, 1 here']
    """
    a, b = flat(old), flat(new)
    free = lambda name: name in FREE or name.split(".")[0] in FREE
    differing = [name for name in b if a[name] != b[name] and not free(name)]
    return [f"{name}: {a[name]!r} there, {b[name]!r} here" for name in differing]


def trained_tasks(config: Config) -> tuple[Component, ...]:
    """Every task that theta is trained on: the task, and those of the mixture.

    Example:
      >>> [task.name for task in trained_tasks(Config(mixture=("quadratic dim=3",)))]
      ['digits_mlp', 'quadratic']
    """
    further = (text.split() or [""] for text in config.mixture)
    return config.task, *(Component(name, tuple(args)) for name, *args in further)


def parse_args(args: tuple[str, ...]) -> dict[str, Any]:
    """Keyword arguments of a `Component`, from their text.

    Raises:
      UserError: where one is not of the form NAME=VALUE.

    Example:
      >>> parse_args(("hidden=[16,8]", "activation=relu"))
      {'hidden': [16, 8], 'activation': 'relu'}
    """
    parsed: dict[str, Any] = {}
    for text in args:
        name, equals, value = text.partition("=")
        if not (equals and name.isidentifier()):
            raise UserError(f"arguments are written NAME=VALUE, got {text!r}.")
        try:
            parsed[name] = json.loads(value)
        except json.JSONDecodeError:
            parsed[name] = value
    return parsed


def flat(config: Config) -> dict[str, Any]:
    """A configuration's values by the names that the command line has for them.

    Example:
      >>> flat(Config())["outer.clip_norm"]
      1.0
    """
    return _flat(dataclasses.asdict(config))


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in tree.items():
        nested = isinstance(value, dict)
        flat.update(_flat(value, f"{prefix}{name}.") if nested else {prefix + name: value})
    return flat


def _build(cls, values, where):
    if not isinstance(values, dict):
        raise UserError(f"{where or 'the configuration'} must be an object, got {values!r}.")
    types = get_type_hints(cls)
    if unknown := sorted(set(values) - set(types)):
        raise UserError(f"unknown field {where}{unknown[0]!r}; valid: {', '.join(sorted(types))}.")
    required = {f.name for f in dataclasses.fields(cls) if f.default is f.default_factory}
    if missing := sorted(required - set(values)):
        raise UserError(f"{where}{missing[0]} is missing.")
    built = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(types[name]):
            built[name] = _build(types[name], value, f"{where}{name}.")
        elif _is_a(value, types[name]):
            built[name] = tuple(value) if isinstance(value, list) else value
        else:
            kind = types[name]
            said = str(kind).removeprefix("typing.") if get_args(kind) else kind.__name__
            raise UserError(f"{where}{name} must be {said}, got {value!r}.")
    return cls(**built)


def _is_a(value: Any, kind: Any) -> bool:
    """Whether a JSON value can be a field's: of its type, a whole number too where it is float."""
    arguments = get_args(kind)
    if get_origin(kind) is Literal:
        return value in arguments
    if get_origin(kind) is tuple:  # of strings, all that there is
        return isinstance(value, (list, tuple)) and all(isinstance(x, str) for x in value)
    if arguments:  # a union
        return any(_is_a(value, option) for option in arguments)
    if isinstance(value, bool):
        return kind is bool
    if isinstance(value, int):  # what an int32 holds
        return kind in (int, float) and abs(value) < 2**31
    return isinstance(value, kind)
