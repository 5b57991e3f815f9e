"""The paper's first experiment, against numbers measured on the authors' own code."""

import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaopt import unroll
from metaopt.estimators import full_es, gpes
from metaopt.tasks import lorenz

PROBLEM = lorenz()

FAST = {"xla_backend_optimization_level": 1}
"""For a program that runs for seconds, unlike others of the suite."""
if "xla_cpu_use_fusion_emitters" in os.environ["XLA_FLAGS"]:
    FAST["xla_cpu_use_fusion_emitters"] = True

# tr Cov of one particle at (log a, log r), W = 100, sigma = 0.04, by K; None stands for FullES.
MEASURED = {
    (3.116, 3.7): {100: 1.51e8, 2000: 1.33e7, None: 4.12e6},
    (2.35, 3.36): {500: 1.16e7},
}


def test_a_step_by_hand():
    """dx = a (y - x), dy = (r - z) x - y, dz = x y - b z at (1.2, 1.3, 1.6), a = 20, r = 30."""
    theta = jnp.log(jnp.array([20.0, 30.0]))
    state = PROBLEM.init(theta, (), 2000, jax.random.key(0))
    after, loss = PROBLEM.step(theta, state, ())
    change = np.array([20 * 0.1, 28.4 * 1.2 - 1.3, 1.2 * 1.3 - 8 / 3 * 1.6])
    np.testing.assert_allclose(after.model, [1.2, 1.3, 1.6] + 0.005 * change, rtol=1e-5)
    assert float(loss) == pytest.approx(0.0, abs=1e-10)  # z's first step depends on neither


def test_the_truth_has_no_loss():
    theta = jnp.log(jnp.array([10.0, 28.0]))
    state = PROBLEM.init(theta, (), 2000, jax.random.key(0))
    assert float(unroll(PROBLEM, theta, state, (), 2000)[1].max()) == 0.0


def test_test_loss_where_meta_training_starts():
    theta = PROBLEM.init_theta(jax.random.key(0))
    assert float(PROBLEM.test_loss(theta, (), jax.random.key(0))) == pytest.approx(312.5, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("theta", MEASURED)
def test_variance_of_one_particle(theta):
    measured = MEASURED[theta]
    for reuse, expected in measured.items():
        if reuse is None:
            estimator = full_es(PROBLEM, particles=4000, horizon=2000, sigma=0.04)
        else:
            estimator = gpes(
                PROBLEM,
                particles=20_000,
                horizon=2000,
                window=100,
                sigma=0.04,
                reuse=reuse,
                first_episode="burn_in",
            )

        @partial(jax.jit, compiler_options=FAST)
        def variance(key, estimator=estimator):
            state = estimator.init(jnp.array(theta), (), jax.random.fold_in(key, 0))
            estimate, _ = estimator.estimate(jnp.array(theta), state, (), key)
            return estimate.metrics["particle_variance"]

        ours = np.mean([variance(jax.random.key(i)) for i in range(3)])
        assert ours == pytest.approx(expected, rel=0.05), reuse
