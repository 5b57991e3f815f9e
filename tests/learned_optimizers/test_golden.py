"""Parity with traces recorded from an independent implementation of the same optimizers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metaopt.learned_optimizers import LEARNED_OPTIMIZERS, import_theta

VELO = {"lstm_hidden_size": 32, "param_inits": 8}

# Trace: our name, its arguments, the tolerance relative to how far a tensor has moved.
TRACES = {
    "learnable_sgd": ("sgd", {}, 1e-4),
    "learnable_sgdm": ("sgdm", {}, 1e-4),
    "learnable_adam": ("adam", {}, 1e-4),
    "mlp": ("mlp", {}, 1e-4),
    "adafac_mlp": ("adafac_mlp", {}, 1e-4),
    "nn_adam": ("nn_adam", {}, 1e-3),
    "velo_small": ("velo", VELO, 1e-3),
    "velo_small_released_loss_features": ("velo", VELO | {"loss_features": "released"}, 1e-3),
    "celo": ("celo", {}, 1e-3),
    "celo2": ("celo2", {}, 1e-3),
    "celo2_base": ("celo2_base", {}, 1e-3),
}


def read(path):
    with np.load(path) as arrays:
        return {key: arrays[key] for key in arrays.files}


def select(trace, prefix):
    return {
        k.removeprefix(prefix): jnp.asarray(v) for k, v in trace.items() if k.startswith(prefix)
    }


def excess(ours, expected, start, tolerance):
    """The largest error relative to what parity allows: at most 1."""
    moved, scale = np.abs(expected - start).max(), np.abs(expected).max()
    return np.abs(ours - expected).max() / (tolerance * moved + 3e-7 * max(1, scale))


@pytest.mark.parametrize("name", TRACES)
def test_follows_the_traces(golden, name):
    ours, arguments, tolerance = TRACES[name]
    optimizer = LEARNED_OPTIMIZERS[ours](**arguments)

    @jax.jit
    def step(theta, num_steps, grads, state, params, loss):
        tx = optimizer.optimizer(theta, num_steps)
        updates, state = tx.update(grads, state, params, value=loss)
        return optax.apply_updates(params, updates), updates, state

    worst = 0.0
    for seed in (0, 1):
        trace = read(golden / f"{name}-{seed}.npz")
        meta = json.loads(trace["meta"].tobytes())
        theta = import_theta(ours, select(trace, "theta|"), **arguments)
        num_steps = jnp.int32(meta["num_steps"])
        params = start = select(trace, "params0|")
        state = optimizer.optimizer(theta, num_steps).init(params)
        for i in range(meta["steps"]):
            grads, loss = select(trace, f"grads|{i}|"), jnp.asarray(trace[f"loss|{i}"])
            params, updates, state = step(theta, num_steps, grads, state, params, loss)
            for tensor, expected in select(trace, f"params|{i}|").items():
                error = excess(params[tensor], expected, start[tensor], tolerance)
                assert error <= 1, (seed, i, tensor)
                worst = max(worst, error)
            for tensor, before_rate in select(trace, f"updates|{i}|").items():
                error = excess(updates[tensor] / -meta["lr"], before_rate, 0.0, tolerance)
                assert error <= 1, (seed, i, tensor, "step")
                worst = max(worst, error)
    print(f"{name}: {worst:.3f} of the tolerance")


def test_import_is_strict(golden):
    flat = select(read(golden / "mlp-0.npz"), "theta|")
    bias = flat.pop("mlp/~/linear_0/b")
    flat["mlp/~/linear_9/b"] = bias
    flat["mlp/~/linear_1/b"] = bias[:5]
    with pytest.raises(ValueError, match="does not fit") as error:
        import_theta("mlp", flat)
    for said in (
        "layer_0/bias is missing",
        "mlp/~/linear_9/b is not",
        "layer_1/bias has shape (5,)",
    ):
        assert said in str(error.value)
