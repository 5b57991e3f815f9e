"""Every command and every line of Python in the README runs."""

import re

import jax
import pytest
from conftest import ROOT

from metaopt.commands import main as command_line

TEXT = (ROOT / "README.md").read_text()
SHORTER = ["--outer-steps", "2", "--quiet", "--evaluation.seeds"]


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def test_the_first_commands_are_the_two():
    first, second = (block.strip() for block in blocks("bash")[:2])
    assert first == "pip install -e . && metaopt train"
    assert second == "pip install -e '.[test]' && pytest"  # .ci/run takes it from there


def test_everything_runs_in_order(tmp_path, monkeypatch, capsys):
    """In one folder, runs shortened to two outer steps, evaluations to the smallest task."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("metaopt.training.placement.prepare_jax", lambda devices=None: None)
    monkeypatch.setattr("metaopt.diagnosis.diagnose.SECONDS", 0.1)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.values["jax_compilation_cache_dir"])
    lines = "\n".join(blocks("bash")).replace("&&", "\n").splitlines()
    commands = [line.split()[1:] for line in lines if line.strip().startswith("metaopt ")]
    assert len(commands) >= 5
    for i, command in enumerate(commands):
        if command[0] == "train":  # and only the first, the README's own, is evaluated
            command += [*SHORTER, "2" if i == 0 else "0"]
        elif command[0] == "evaluate":
            command += ["--num-steps", "4", "--seeds", "2", "--tasks", "quadratic"]
        elif command[0] == "diagnose":
            command += ["--estimators", "nres", "full_es"]
        elif command[0] == "launch":  # goes on with the run of before
            command += ["--outer-steps", "3", "--evaluation.seeds", "0"]
        elif command[0] == "compare":
            command += ["--outer-steps", "2"]
        assert command_line.main(command) == 0, (command, capsys.readouterr())
    names = {}
    for block in blocks("python"):
        exec(block, names)
    assert names["state"].step == 100


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)#:]+)\)", TEXT))))
def test_links_lead_somewhere(path):
    assert (ROOT / path).exists()


def test_the_shipped_optimizer_trains_a_network():
    import jax.numpy as jnp
    import optax

    import metaopt

    tx = metaopt.load(ROOT / "checkpoints" / "mlp-digits", num_steps=50)
    params = {"w": jnp.zeros((4, 3)), "b": jnp.zeros(3)}
    x = jax.random.normal(jax.random.key(0), (64, 4))
    y = jnp.argmax(x[:, :3], axis=1)

    def loss(params):
        logits = x @ params["w"] + params["b"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    @jax.jit
    def step(params, state):
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state, params, value=value)
        return optax.apply_updates(params, updates), state, value

    state, values = tx.init(params), []
    for _ in range(50):
        params, state, value = step(params, state)
        values.append(float(value))
    assert values[-1] < 0.5 * values[0]
