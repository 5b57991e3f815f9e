"""29 hyper-parameters of one training run: a rate and a momentum for each tensor, and widths.

An MLP of five hidden layers is trained by momentum with a rate and a decay for each of its twelve
kernels and biases, and of each hidden layer only the first units are used: how many, theta says
(Vicol 2023, ES-Single, arXiv 2304.11153, section 5.3; nested dropout is Rippel et al. 2014,
arXiv 1402.0915). A count of units has no derivative, so that this is for evolution strategies.
"""

from itertools import pairwise
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from metaopt import PyTree, UnrolledProblem, unroll
from metaopt.tasks.datasets import random_rows
from metaopt.tasks.pixels import pixels
from metaopt.tasks.supervised import positive

LAYERS = 5
RATES, MOMENTA, FRACTIONS = (1e-4, 1e-2), (0.5, 0.95), (0.2, 0.8)
"""Between which values theta's start is drawn; rates log-uniformly."""


class TuningState(NamedTuple):
    """An inner run in progress.

    Attributes:
      params: a list of ``{"kernel", "bias"}``, one a layer.
      velocity: like the parameters.
      step: int32 scalar, steps done.
      key: the episode's key.
    """

    params: PyTree
    velocity: PyTree
    step: jax.Array
    key: jax.Array


def tune_hyperparameters(
    *,
    dataset: str = "digits",
    side: int = 8,
    width: int = 100,
    batch_size: int = 100,
    test_steps: int = 1000,
) -> UnrolledProblem:
    """Rates, momenta and widths of an MLP; L_t is the loss of a validation batch after step t.

    theta is ``log_rates`` and ``momenta`` (logits), float32 ``[6, 2]`` for each layer's kernel and
    bias, and ``widths``, ``[5]``, logits of the part of each hidden layer that is used.

    Args:
      dataset: ``"digits"``, which is embedded, or one of `metaopt.tasks.image_sets`; the source's
        is ``"mnist"`` with ``side=28``.
      side: height and width of the images.
      width: units of each hidden layer, at most.
      batch_size: images a batch.
      test_steps: the test loss is the mean over so many steps, on the test split's batches.

    Raises:
      ValueError: for another data set or a size below 1.

    Examples:
      >>> problem = tune_hyperparameters()
      >>> theta = problem.init_theta(jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(theta))
      29
    """
    positive(width=width, batch_size=batch_size, test_steps=test_steps)
    source = pixels(dataset, side)
    sizes = (side * side * source.shape[-1], *[width] * LAYERS, source.classes)

    def init_theta(key):
        rates, momenta, fractions = jax.random.split(key, 3)
        between = lambda key, shape, ends: jax.random.uniform(
            key, shape, jnp.float32, minval=ends[0], maxval=ends[1]
        )
        low, high = jnp.log(jnp.array(RATES, jnp.float32))
        return {
            "log_rates": between(rates, (LAYERS + 1, 2), (low, high)),
            "momenta": jax.scipy.special.logit(between(momenta, (LAYERS + 1, 2), MOMENTA)),
            "widths": jax.scipy.special.logit(between(fractions, (LAYERS,), FRACTIONS)),
        }

    def init(theta, data, horizon, key):
        params_key, run_key = jax.random.split(key)
        params: list[Any] = []
        for i, shape in enumerate(pairwise(sizes)):
            kernel = jax.random.normal(jax.random.fold_in(params_key, i), shape, jnp.float32)
            params.append({"kernel": (2 / shape[0]) ** 0.5 * kernel, "bias": jnp.zeros(shape[1])})
        return TuningState(params, optax.tree.zeros_like(params), jnp.int32(0), run_key)

    def loss_of(params, theta, batch):
        x = source.of(batch)
        return cross_entropy(params, theta, x.reshape(len(x), -1), batch["label"])

    def on(split):
        def step(theta, state, data):
            keys = jax.random.split(jax.random.fold_in(state.key, state.step))
            batch = random_rows(data["train"], batch_size, keys[0])
            grads = jax.grad(loss_of)(state.params, theta, batch)
            rates, momenta = jnp.exp(theta["log_rates"]), jax.nn.sigmoid(theta["momenta"])
            numbers = lambda table: [{"kernel": row[0], "bias": row[1]} for row in table]
            velocity = jax.tree.map(
                lambda b, v, g: b * v + g, numbers(momenta), state.velocity, grads
            )
            params = jax.tree.map(lambda p, r, v: p - r * v, state.params, numbers(rates), velocity)
            loss = loss_of(params, theta, random_rows(data[split], batch_size, keys[1]))
            return TuningState(params, velocity, state.step + 1, state.key), loss

        return step

    problem = UnrolledProblem(
        init,
        on("valid"),
        init_theta=init_theta,
        data=source.data,
        loss_cap=1.5 * float(jnp.log(source.classes)),
        differentiable=False,
        shared=cast(Any, TuningState)(params=False, velocity=False, step=True, key=True),
    )

    def test_loss(theta, data, key):
        state = init(theta, data, test_steps, key)
        tested = problem._replace(step=on("test"))
        return jnp.mean(unroll(tested, theta, state, data, test_steps)[1])

    return problem._replace(test_loss=test_loss)


def cross_entropy(params: PyTree, theta: PyTree, x: jax.Array, label: jax.Array) -> jax.Array:
    """The mean loss, in nats, of the network whose hidden layers are as wide as theta says.

    Of a layer of n units the first round(n sigmoid(w)) are used, at least one.
    """
    for i, layer in enumerate(params):
        x = x @ layer["kernel"] + layer["bias"]
        if i < LAYERS:
            used = jnp.maximum(1.0, jnp.round(x.shape[-1] * jax.nn.sigmoid(theta["widths"][i])))
            x = jnp.where(jnp.arange(x.shape[-1], dtype=jnp.float32) < used, jax.nn.relu(x), 0.0)
    return optax.softmax_cross_entropy_with_integer_labels(x, label).mean()
