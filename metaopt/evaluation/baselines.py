"""The optimizers that a learned one has to beat, each tuned by a sweep.

A baseline takes a learning rate and the number of steps of the run, so that it can have a schedule:

    rate(t) = peak * min(s / w, (1 + cos(pi (s - w) / (1 - w))) / 2),   s = (t + 1/2) / T,  w = 0.05

is a linear warm-up over the first 5% of the T steps and then a cosine to 0, read at the middle of
each step, so that no step has the rate 0. A sweep tries every rate, and, where that is asked for,
every weight decay and both schedules, which makes a `Setting` of each combination.
"""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from metaopt.config.registry import catalogue, choose
from metaopt.core.errors import UserError
from metaopt.core.types import LearnedOptimizer, PyTree
from metaopt.pretrained import artefact
from metaopt.pretrained.load import read, takes_rate
from metaopt.pretrained.shipped import directory_of, is_trained, shipped

WARM_UP = 0.05
"""The fraction of a run over which a schedule rises to its peak."""

COSINE = "_cosine"
"""How the name of a baseline with `warmup_cosine` ends."""

TUNABLE = ("rate", "decay", "schedule")
"""What a sweep can turn; the rate always."""

RATES = tuple(float(f"{10 ** (k / 3):.3g}") for k in range(-12, 3))
"""Learning rates of every sweep: three a decade, 15 from 1e-4 to 4.64."""

DECAYS = (0.0, 1e-4, 0.1)
"""Weight decays of a sweep that tunes them."""


class Setting(NamedTuple):
    """A point of a sweep.

    Attributes:
      rate: the learning rate, its peak where there is a schedule.
      decay: the weight decay; ``None`` for the baseline's own.
      cosine: 1 for warm-up and cosine, 0 for a constant rate; ``None`` for the baseline's own.
    """

    rate: Any
    decay: Any = None
    cosine: Any = None

    def beside_rate(self) -> str:
        """What else was tuned, in words.

        Examples:
          >>> Setting(0.1).beside_rate(), Setting(0.1, 1e-4, 1.0).beside_rate()
          ('', 'decay 0.0001, cosine')
        """
        words = [] if self.decay is None else [f"decay {self.decay:g}"]
        if self.cosine is not None:
            words.append("cosine" if self.cosine else "constant")
        return ", ".join(words)


def warmup(step: jax.Array | int, num_steps: jax.Array | int) -> jax.Array:
    """The fraction of the rate that a step of a warm-up without a fall has; a float32 scalar.

    Examples:
      >>> [round(float(warmup(step, 100)), 3) for step in (0, 4, 52, 99)]
      [0.1, 0.9, 1.0, 1.0]
    """
    done = (jnp.asarray(step, jnp.float32) + 0.5) / jnp.asarray(num_steps, jnp.float32)
    return jnp.minimum(done / WARM_UP, 1)


def warmup_cosine(step: jax.Array | int, num_steps: jax.Array | int) -> jax.Array:
    """The fraction of the peak rate that a step has, see the module; a float32 scalar.

    Args:
      step: t, from 0.
      num_steps: T; both may be traced, which `optax.warmup_cosine_decay_schedule` does not take.

    Examples:
      >>> [round(float(warmup_cosine(step, 100)), 3) for step in (0, 4, 52, 99)]
      [0.1, 0.9, 0.5, 0.0]
    """
    done = (jnp.asarray(step, jnp.float32) + 0.5) / jnp.asarray(num_steps, jnp.float32)
    falling = (1 + jnp.cos(jnp.pi * jnp.minimum((done - WARM_UP) / (1 - WARM_UP), 1))) / 2
    return jnp.where(done < WARM_UP, done / WARM_UP, falling)


class Baseline(NamedTuple):
    """An optimizer by its `Setting`; calling it makes the optax transformation.

    Attributes:
      make: ``(rate, weight_decay=...) -> optax transformation``; a rate is a number, traced or not,
        or a schedule as optax has it.
      schedule: ``(step, num_steps) -> fraction of the rate``, such as `warmup_cosine`; ``None`` for
        a constant rate. One with a schedule is run for each horizon by itself; of one without, a
        shorter run is the start of a longer one.
      decays: whether ``make`` takes a ``weight_decay``, so that it can be tuned.
      judged: ``(opt_state, params) -> params``, the parameters whose loss counts, where these are
        not those that the gradients are taken at.
    """

    make: Callable[..., optax.GradientTransformation]
    schedule: Callable[..., jax.Array] | None = None
    decays: bool = False
    judged: Callable[[PyTree, PyTree], PyTree] | None = None

    def __call__(self, setting, num_steps=None) -> optax.GradientTransformation:
        """The transformation at a `Setting`, or a learning rate, for a run of ``num_steps`` steps.

        Examples:
          >>> tx = Baseline(optax.sgd, warmup_cosine)(0.5, num_steps=1)
          >>> print(f"{tx.update(jnp.ones(()), tx.init(jnp.zeros(())))[0]:.3f}")
          -0.271
        """
        rate, decay, cosine = setting if isinstance(setting, Setting) else Setting(setting)
        options = {} if decay is None else {"weight_decay": decay}
        fraction: Any = self.schedule
        if cosine is not None:
            fraction = lambda step, T: jnp.where(cosine, warmup_cosine(step, T), 1.0)
        if fraction is None:
            return self.make(rate, **options)
        if num_steps is None:
            raise ValueError("a baseline with a schedule needs num_steps.")
        return self.make(lambda step: rate * fraction(step, num_steps), **options)

    @property
    def has_both_schedules(self) -> bool:
        """Whether it is as well with a constant rate as with a cosine."""
        return self.schedule in (None, warmup_cosine)


def _adamw(rate, weight_decay=1e-2) -> optax.GradientTransformation:
    return optax.adamw(rate, weight_decay=weight_decay)


def _sgdm(rate) -> optax.GradientTransformation:
    return optax.sgd(rate, momentum=0.9)


def _muon(rate, weight_decay=None) -> optax.GradientTransformation:
    if weight_decay is None:
        return optax.contrib.muon(rate)
    # Vectors are Adam's.
    return optax.contrib.muon(rate, weight_decay=weight_decay, adam_weight_decay=weight_decay)


_PLAIN = {
    "adam": Baseline(optax.adam),
    "adamw": Baseline(_adamw, decays=True),
    "lion": Baseline(optax.lion, decays=True),
    "muon": Baseline(_muon, decays=True),
    "sgdm": Baseline(_sgdm),
}

BASELINES: dict[str, Baseline] = {
    **_PLAIN,
    **{f"{name}{COSINE}": one._replace(schedule=warmup_cosine) for name, one in _PLAIN.items()},
    "nadam": Baseline(optax.nadam),
    "rmsprop": Baseline(optax.rmsprop),
    "schedule_free_adamw": Baseline(
        optax.contrib.schedule_free_adamw,
        schedule=warmup,
        decays=True,
        judged=optax.contrib.schedule_free_eval_params,
    ),
    "sgd": Baseline(optax.sgd),
}
"""Name -> baseline. To add one: a line here."""


def baseline_of(name: str) -> Baseline:
    """A baseline by its name; a plain function of a rate, as others may add, is a constant one.

    A trained optimizer that leaves the rate to its user is one, too: as ``NAME_cosine``.

    Raises:
      UserError: if there is no such baseline, or the trained optimizer has a rate of its own.

    Examples:
      >>> baseline_of("adam").schedule is None, baseline_of("adam_cosine").schedule is None
      (True, False)
    """
    known, trained = catalogue("baseline"), name.removesuffix(COSINE)
    if name in known:
        found = known[name]
        return found if isinstance(found, Baseline) else Baseline(found)
    if trained != name and is_trained(trained):
        return _with_rate(trained)
    if is_trained(name):
        raise UserError(
            f"{name!r} is a trained optimizer, not a baseline: name it with the optimizers that "
            f"are evaluated, or, where it takes a rate, {name + COSINE!r} to have that swept."
        )
    swept = [f"{one}{COSINE}" for one in shipped() if takes_rate(_rule_of(one))]
    return choose("baseline", name, {**known, **dict.fromkeys(swept)})  # which says what is valid


def by_label(names: Sequence[str]) -> dict[str, str]:
    """Baselines by what tables call them: a trained one by its folder's name, not the whole path.

    Examples:
      >>> by_label(["adam", "runs/mine_cosine"])
      {'adam': 'adam', 'mine_cosine': 'runs/mine_cosine'}
      >>> list(by_label(["runs/a/mine_cosine", "runs/b/mine_cosine"]))
      ['runs/a/mine_cosine', 'runs/b/mine_cosine']
      >>> list(by_label(["runs/adam_cosine"]))  # which is not the baseline of that name
      ['runs/adam_cosine']
    """
    names = list(dict.fromkeys(names))
    folder = lambda name: Path(name.removesuffix(COSINE)).resolve().name
    short = [f"{folder(one)}{COSINE}" if one.endswith(COSINE) else one for one in names]
    is_free = lambda label: short.count(label) == 1 and label not in catalogue("baseline")
    return {label if is_free(label) else one: one for label, one in zip(short, names, strict=True)}


def _rule_of(trained: str) -> str:
    """The learned optimizer that theta belongs to."""
    return artefact.read_artefact(directory_of(trained)).optimizer.name


def _with_rate(trained: str) -> Baseline:
    rule = _rule_of(trained)
    if not takes_rate(rule):
        raise UserError(
            f"there is no rate of {trained} to be swept: {rule} has one of its own. Name it "
            "with the optimizers that are evaluated, not among the baselines."
        )

    def make(rate) -> optax.GradientTransformation:
        optimizer, theta = read(trained, learning_rate=rate)
        return optimizer.optimizer(theta)

    return Baseline(make, schedule=warmup_cosine)


def settings_of(
    name: str, rates: Sequence[float], tune: Sequence[str] = ("rate",)
) -> tuple[Setting, ...]:
    """The points of a baseline's sweep; the rate changes fastest.

    Args:
      name: of the baseline.
      rates: learning rates.
      tune: of `TUNABLE`. What a baseline does not have is not tuned: plain Adam has no decay.

    Raises:
      UserError: for an unknown name.

    Examples:
      >>> settings_of("sgd", (0.1, 1.0), tune=("rate", "decay"))
      (Setting(rate=0.1, decay=None, cosine=None), Setting(rate=1.0, decay=None, cosine=None))
      >>> len(settings_of("adamw", (0.1, 1.0), tune=("decay", "schedule")))
      12
    """
    for one in tune:
        choose("tune", one, dict.fromkeys(TUNABLE))
    found = baseline_of(name)
    decays = DECAYS if "decay" in tune and found.decays else (None,)
    cosines = (0.0, 1.0) if "schedule" in tune and found.has_both_schedules else (None,)
    return tuple(
        Setting(rate, decay, cosine)
        for cosine, decay, rate in itertools.product(cosines, decays, rates)
    )


def stacked(settings: Sequence[Setting]) -> Setting:
    """The same as one `Setting` of float32 arrays ``[M]``, for `jax.vmap`.

    Examples:
      >>> stacked(settings_of("adamw", (0.1, 1.0), tune=("decay",))).decay.shape
      (6,)
    """
    return jax.tree.map(lambda *values: jnp.array(values, jnp.float32), *settings)


def baseline(name: str) -> LearnedOptimizer:
    """A baseline as an optimizer whose theta is its `Setting`, or its rate, to be vmapped over.

    Raises:
      UserError: if there is no such baseline.

    Examples:
      >>> tx = baseline("sgd").optimizer(0.5)
      >>> tx.update(jnp.ones(2), tx.init(jnp.zeros(2)))[0].tolist()
      [-0.5, -0.5]
    """
    make = baseline_of(name)
    return LearnedOptimizer(
        init=lambda key: jnp.float32(1e-3),
        optimizer=lambda at, num_steps=None: optax.with_extra_args_support(make(at, num_steps)),
    )
