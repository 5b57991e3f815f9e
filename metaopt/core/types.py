"""The records that everything is made of: pure functions in NamedTuples, as optax has them.

    Task x LearnedOptimizer -> UnrolledProblem -> GradientEstimator -> outer step on MetaState

Nothing here computes. A record holds functions; what persists is in the states they pass on.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
import optax

from metaopt.core.metric import Metric

PyTree = Any
"""Any nest of containers with arrays at its leaves."""

Theta = PyTree
"""Meta-parameters: a tree of float arrays, d numbers in all."""

Key = jax.Array
"""A typed random key, shape ``()``, as `jax.random.key` makes them."""


class Task(NamedTuple):
    """A family of inner problems: data, a model to train and its loss.

    Attributes:
      data: ``() -> data``. Loads the data set on the host, once: a tree of arrays with one entry a
        split (``"train"``, ``"valid"``, ``"test"``). It is passed on as an argument from there.
      init: ``(config, key) -> params``. Fresh inner parameters.
      batch: ``(data, config, split, key) -> batch``. A random batch of a split; with ``key=None``
        the whole split.
      loss: ``(config, params, batch, key) -> scalar``. The mean loss of a batch.
      sample: ``key -> config``. Draws a member of the family; ``()`` where there is only one.
      loss_cap: the largest loss that counts, in the loss's own unit. A larger or non-finite one
        counts as the cap, so that divergence is punished. ``None``: such a pair is left out.
      accuracy: ``(config, params, batch, key) -> scalar``, the fraction of a batch that is right,
        of a classifier: evaluations show it beside the loss. ``None`` where there is no such thing.
      stream: ``() -> metaopt.Stream`` of trees like ``data``, for data that does not fit the
        device: meta-training goes from window to window, all else sees ``data`` alone.
      outer_loss: like ``loss``: what counts as the loss L_t where that is not ``loss`` itself, such
        as one that is clipped for each row. Inner gradients and evaluations take ``loss``.
      sequence: if given, meta-training repeats one episode: member, init, batches and all other
        randomness follow from this seed, whatever the particle. Evaluations draw as always.
    """

    data: Callable[[], PyTree]
    init: Callable[[PyTree, Key], PyTree]
    batch: Callable[[PyTree, PyTree, str, Key | None], PyTree]
    loss: Callable[[PyTree, PyTree, PyTree, Key], jax.Array]
    sample: Callable[[Key], PyTree] = lambda key: ()
    loss_cap: float | None = None
    stream: Callable[[], Any] | None = None
    accuracy: Callable[[PyTree, PyTree, PyTree, Key], jax.Array] | None = None
    outer_loss: Callable[[PyTree, PyTree, PyTree, Key], jax.Array] | None = None
    sequence: int | None = None


class OptimizerFn(Protocol):
    """``(theta, num_steps) -> optax transformation``."""

    def __call__(
        self, theta: Theta, num_steps: jax.Array | int | None = None
    ) -> optax.GradientTransformationExtraArgs:
        """The optimizer that ``theta`` parametrises, for an inner run of ``num_steps`` steps.

        ``num_steps`` may be a traced int32 scalar; optimizers that have no use for it ignore it.
        The current loss is handed to ``update`` under optax's own name, ``value=``.
        """
        ...


class LearnedOptimizer(NamedTuple):
    """An optimizer with meta-parameters.

    Attributes:
      init: ``key -> theta``.
      optimizer: ``(theta, num_steps=None) -> optax.GradientTransformationExtraArgs``.
      public_paths: where public checkpoints of this optimizer keep each leaf of theta, as
        ``{their path: our path}``; empty where there are none.
    """

    init: Callable[[Key], Theta]
    optimizer: OptimizerFn
    public_paths: Mapping[str, str] = MappingProxyType({})


def _no_start(key: Key) -> Theta:
    raise ValueError("this problem does not say where theta starts: give it init_theta.")


class UnrolledProblem(NamedTuple):
    """One computation, unrolled under shared parameters: s_t = f(s_{t-1}; theta), loss L_t.

    The state carries its own step counter and key, so that ``step`` is a pure function and the two
    halves of an antithetic pair, started from one key, see the same randomness.

    Attributes:
      init: ``(theta, data, horizon, key) -> state``. ``horizon``: int32 scalar, in inner steps.
      step: ``(theta, state, data) -> (state, loss)``. One inner step; ``loss`` is a scalar L_t.
      init_theta: ``key -> theta``. Where meta-training starts. A `metaopt.RunningStatistics` in it
        is measured along the way, not learned.
      data: ``() -> data``. What the host loads once and passes on as an argument.
      loss_cap: as in `Task`.
      differentiable: whether ``init`` and ``step`` have derivatives with respect to theta and to
        the state's float leaves that say something. ``False`` where a loss is a count or a step
        function: the gradient-based estimators refuse such a problem, the ES family takes it.
      test_loss: ``(theta, data, key) -> scalar``, a measure of theta on what training does not see;
        ``None`` if there is none. Where it is no loss, ``test_metric`` says so.
      test_metric: what ``test_loss`` measures. A problem of rewards has
        ``Metric("return", higher_is_better=True)`` and its ``test_loss`` gives the return itself.
      shared: what of the state theta never reaches (counters, keys, the episode's data): a tree of
        bools, or one for the whole of a subtree. An antithetic pair keeps one of it and computes
        what follows from it, such as a batch, once.
      stream: as in `Task`.
      done: ``state -> bool scalar``, whether the episode has ended before its horizon, such as a
        pole that has fallen; ``None`` where every episode lasts to its horizon. The step that
        reaches such a state still counts with its own loss. From there on the state is kept as it
        is, but for its ``shared`` parts, and `done` has to stay true of it. The ES family takes
        such problems; the estimators by derivatives refuse them.
      loss_after_end: the loss L_t of every step from the end to the horizon. With a reward of 1 for
        every step that an episode lasts, L_t is -1 and this is 0.
      render: ``(theta, data, key, seconds) -> (frames, rate)``, an episode in pictures for
        ``metaopt render``: so many seconds of it at most, uint8 ``[n, height, width, 3]``, and how
        many of them a second. ``None`` if there is nothing to see.
    """

    init: Callable[[Theta, PyTree, jax.Array | int, Key], PyTree]
    step: Callable[[Theta, PyTree, PyTree], tuple[PyTree, jax.Array]]
    init_theta: Callable[[Key], Theta] = _no_start
    data: Callable[[], PyTree] = lambda: ()
    loss_cap: float | None = None
    differentiable: bool = True
    test_loss: Callable[[Theta, PyTree, Key], jax.Array] | None = None
    shared: PyTree = False
    stream: Callable[[], Any] | None = None
    test_metric: Metric = Metric()
    done: Callable[[PyTree], jax.Array] | None = None
    loss_after_end: float = 0.0
    render: Callable[[Theta, PyTree, Key, float], tuple[np.ndarray, float]] | None = None


class Estimate(NamedTuple):
    """What an estimator says of one outer step.

    Attributes:
      grad: gradient of the per-step average loss; a tree like theta. NaN where nothing finite was
        seen: the outer step then skips the update.
      loss: scalar, the estimate of that loss.
      metrics: flat dict of scalars, reduced over particles.
    """

    grad: Theta
    loss: jax.Array
    metrics: dict[str, jax.Array]


class GradientEstimator(NamedTuple):
    """A stateful estimator of the meta-gradient.

    Attributes:
      init: ``(theta, data, key) -> state``. Every leaf of the state has particles as axis 0.
      estimate: ``(theta, state, data, key) -> (Estimate, state)``. ``key`` is this outer step's.
      resize: ``(theta, state, data, key) -> state``: of another number of particles, one of this
        estimator's; ``None`` where that is not possible.
    """

    init: Callable[[Theta, PyTree, Key], PyTree]
    estimate: Callable[[Theta, PyTree, PyTree, Key], tuple[Estimate, PyTree]]
    resize: Callable[[Theta, PyTree, PyTree, Key], PyTree] | None = None


class MetaState(NamedTuple):
    """Everything of a meta-training run that persists; a checkpoint is this, saved.

    Attributes:
      step: int32 scalar, outer steps done.
      theta: the meta-parameters.
      opt_state: the outer optax optimizer's state.
      estimator: the estimator's state, particles as axis 0.
      key: the run's key. Step n uses ``fold_in(key, n)``, so it never changes.
      backoff: where to go back to if theta fails, see `metaopt.core.backoff`.
    """

    step: jax.Array
    theta: Theta
    opt_state: PyTree
    estimator: PyTree
    key: Key
    backoff: PyTree
