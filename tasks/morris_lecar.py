"""Networks of Morris-Lecar neurons that integrate a stimulus or remember one.

    C dV = I - gL (V - VL) - gCa m(V) (V - VCa) - gK w (V - VK),   dw = phi (w_inf(V) - w) / tau(V)
    m = (1 + tanh((V - V1) / V2)) / 2,   w_inf = (1 + tanh((V - V3) / V4)) / 2
    tau = 1 / cosh((V - V3) / (2 V4))

C in uF/cm2, conductances in mS/cm2, V in mV, currents in uA/cm2, time in ms; explicit Euler. The
neurons are coupled by synapses that follow the sender's voltage, ds = (sigmoid(V / 10) - s) / 100,
through weights that theta holds. Spikes make derivatives through such a network explode, where
evolution strategies only see the smoothed loss: after the problems of Hazelden et al. 2023 (arXiv
2311.10869), of which the abstract is public; sizes, stimuli and losses are ours.
"""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

from metaopt import Theta, UnrolledProblem, unroll
from metaopt.tasks.supervised import positive

C, G_L, G_CA, G_K = 20.0, 2.0, 4.0, 8.0
V_L, V_CA, V_K = -60.0, 120.0, -84.0
V_1, V_2, V_3, V_4, PHI = -1.2, 18.0, 12.0, 17.4, 0.067
SYNAPSE_SLOPE, SYNAPSE_TIME = 10.0, 100.0
"""In mV and ms: synapses are slow, as NMDA's are."""
GAIN = 20.0
"""Of the answer's weights: a neuron that spikes at times has a synapse of some 0.05."""
REST, REST_W = -60.0, 0.0
BIAS_CURRENT = 36.0
"""Into every neuron, a little below what makes it spike by itself."""
DT = 0.25
"""Of an Euler step, in ms."""
EULER_STEPS = 4
"""A step of the problem is so many: 1 ms."""
NOISE = 2.0
"""Of the stimulus that is to be integrated, over its strength, in each ms."""
PULSE, SECOND = (0.05, 0.15), (0.5, 0.6)
"""When the two pulses to remember last, in parts of the episode."""
ANSWER = 0.8
"""The part of the episode after which the answer is read."""


class NetworkState(NamedTuple):
    """A batch of trials.

    Attributes:
      v, w, s: float32 ``[trials, neurons]``, voltages, potassium gates and synapses.
      sign: float32 ``[trials, 2]``, of the stimulus, or of both pulses: -1 or 1.
      step, horizon: int32 scalars, in ms.
      key: the episode's.
    """

    v: jax.Array
    w: jax.Array
    s: jax.Array
    sign: jax.Array
    step: jax.Array
    horizon: jax.Array
    key: jax.Array


def morris_lecar_integration(
    *, neurons: int = 16, trials: int = 8, strength: float = 2.0, test_steps: int = 300
) -> UnrolledProblem:
    """Say which sign a noisy current had on average.

    Args:
      neurons: of the network.
      trials: in an episode, beside each other.
      strength: of the stimulus, in uA/cm2; its noise is `NOISE` times as strong.
      test_steps: the test loss is of trials of so many ms, 256 of them.

    Raises:
      ValueError: for a size below 1.

    Examples:
      >>> problem = morris_lecar_integration()
      >>> theta = problem.init_theta(jax.random.key(0))
      >>> theta["recurrent"].shape, theta["input"].shape
      ((16, 16), (16,))
    """

    def stimulus(state):
        noise_key = jax.random.fold_in(state.key, state.step)
        noise = jax.random.normal(noise_key, state.sign[:, 0].shape, jnp.float32)
        listens = (_part(state) < ANSWER).astype(jnp.float32)
        return listens * strength * (state.sign[:, 0] + NOISE * noise)

    return _problem(neurons, trials, test_steps, stimulus)


def morris_lecar_memory(
    *, neurons: int = 16, trials: int = 8, strength: float = 40.0, test_steps: int = 200
) -> UnrolledProblem:
    """Say which sign the first of two pulses had, long after both.

    Args:
      neurons: of the network.
      trials: in an episode, beside each other.
      strength: of the pulses, in uA/cm2.
      test_steps: the test loss is of trials of so many ms, 256 of them.

    Raises:
      ValueError: for a size below 1.
    """

    def stimulus(state):
        during = [
            ((start <= _part(state)) & (_part(state) < end)).astype(jnp.float32)
            for start, end in (PULSE, SECOND)
        ]
        return strength * (state.sign @ jnp.stack(during))

    return _problem(neurons, trials, test_steps, stimulus)


def _problem(neurons: int, trials: int, test_steps: int, stimulus: Any) -> UnrolledProblem:
    """The loss of a ms is the answer's cross-entropy, in nats, after `ANSWER`, and 0 before."""
    positive(neurons=neurons, trials=trials, test_steps=test_steps)

    def init_theta(key):
        recurrent, inward, outward = jax.random.split(key, 3)
        normal = lambda key, *shape: jax.random.normal(key, shape, jnp.float32)
        return {
            "recurrent": 10 * neurons**-0.5 * normal(recurrent, neurons, neurons),
            "input": normal(inward, neurons),
            "output": neurons**-0.5 * normal(outward, neurons),
            "output_bias": jnp.float32(0),
        }

    def start(horizon, key, trials):
        sign_key, run_key = jax.random.split(key)
        resting = lambda value: jnp.full((trials, neurons), value, jnp.float32)
        sign = jax.random.rademacher(sign_key, (trials, 2), jnp.float32)
        synapse = jax.nn.sigmoid(jnp.float32(REST / SYNAPSE_SLOPE))
        horizon = jnp.asarray(horizon, jnp.int32)
        return NetworkState(
            resting(REST), resting(REST_W), resting(synapse), sign, jnp.int32(0), horizon, run_key
        )

    def step(theta, state, data):
        current = BIAS_CURRENT + stimulus(state)[:, None] * theta["input"]
        for _ in range(EULER_STEPS):
            state = euler(theta, state, current)
        answer = GAIN * state.s @ theta["output"] + theta["output_bias"]
        wrong = jax.nn.softplus(-state.sign[:, 0] * answer).mean()
        loss = jnp.where(_part(state) >= ANSWER, wrong, 0.0)
        return state._replace(step=state.step + 1), loss

    problem = UnrolledProblem(
        init=lambda theta, data, horizon, key: start(horizon, key, trials),
        step=step,
        init_theta=init_theta,
        shared=cast(Any, NetworkState)(False, False, False, True, True, True, True),
    )

    def test_loss(theta, data, key):
        losses = unroll(problem, theta, start(test_steps, key, 256), data, test_steps)[1]
        return losses.sum() / (losses > 0).sum(dtype=jnp.float32)

    return problem._replace(test_loss=test_loss)


def euler(theta: Theta, state: NetworkState, current: jax.Array) -> NetworkState:
    """`DT` of the network under a current ``[trials, neurons]`` beside the synapses'."""
    v, w, s = state.v, state.w, state.s
    current = current + s @ theta["recurrent"].T
    dv, dw = neuron(v, w, current)
    ds = (jax.nn.sigmoid(v / SYNAPSE_SLOPE) - s) / SYNAPSE_TIME
    return state._replace(v=v + DT * dv, w=w + DT * dw, s=s + DT * ds)


def neuron(v: jax.Array, w: jax.Array, current: jax.Array | float) -> tuple[jax.Array, jax.Array]:
    """dV/dt in mV/ms and dw/dt in 1/ms.

    Examples:
      >>> dv, dw = neuron(jnp.float32(-60.0), jnp.float32(0.0), 0.0)
      >>> round(float(dv), 3), round(float(dw), 4)
      (0.052, 0.0001)
    """
    m = (1 + jnp.tanh((v - V_1) / V_2)) / 2
    w_inf = (1 + jnp.tanh((v - V_3) / V_4)) / 2
    ions = G_L * (v - V_L) + G_CA * m * (v - V_CA) + G_K * w * (v - V_K)
    return (current - ions) / C, PHI * (w_inf - w) * jnp.cosh((v - V_3) / (2 * V_4))


def _part(state: NetworkState) -> jax.Array:
    return state.step.astype(jnp.float32) / state.horizon.astype(jnp.float32)
