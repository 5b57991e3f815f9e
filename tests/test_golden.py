"""Parity with traces recorded from an independent implementation of the same optimizers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from learned_optimizers import LEARNED_OPTIMIZERS, import_theta

TRACES = [
    f"{name}-{seed}"
    for name in ("learnable_sgd", "learnable_sgdm", "learnable_adam", "mlp", "adafac_mlp")
    for seed in (0, 1)
]


@pytest.mark.parametrize("trace", TRACES)
def test_follows_the_trace(golden, trace):
    with np.load(golden / f"{trace}.npz") as arrays:
        trace = {key: arrays[key] for key in arrays.files}
    meta = json.loads(trace["meta"].tobytes())
    select = lambda prefix: {
        key.removeprefix(prefix): jnp.asarray(value)
        for key, value in trace.items()
        if key.startswith(prefix)
    }
    name = meta["optimizer"]
    theta = import_theta(name, select("theta|"))
    optimizer = LEARNED_OPTIMIZERS[name.removeprefix("learnable_")]()
    tx = optimizer.optimizer(theta, meta["num_steps"])

    @jax.jit
    def step(grads, state, params, loss):
        updates, state = tx.update(grads, state, params, value=loss)
        return optax.apply_updates(params, updates), state

    params = start = select("params0|")
    state = tx.init(params)
    for i in range(meta["steps"]):
        params, state = step(select(f"grads|{i}|"), state, params, jnp.asarray(trace[f"loss|{i}"]))
        for tensor, expected in select(f"params|{i}|").items():
            moved = np.abs(expected - start[tensor]).max()
            allowed = 1e-4 * moved + 3e-7 * max(1, np.abs(expected).max())
            assert np.abs(params[tensor] - expected).max() <= allowed, (i, tensor)


def test_import_is_strict(golden):
    with np.load(golden / "mlp-0.npz") as arrays:
        flat = {k.removeprefix("theta|"): arrays[k] for k in arrays.files if k.startswith("theta|")}
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
