"""Every command and every line of Python in README, documentation and cards does what it says."""

import inspect
import re
import shlex

import jax
import pytest
from conftest import ROOT

from metaopt.commands import main as command_line

README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
CARDS = sorted((ROOT / "checkpoints").glob("*/CARD.md"))
RUN = [
    pytest.param(path, id=path.name, marks=() if path == README else pytest.mark.slow)
    for path in PAGES
]
SHORTER = ["--outer-steps", "2", "--quiet", "--evaluation.seeds", "0"]


def blocks(path, *languages):
    """The fenced blocks of these languages."""
    found = re.findall(r"^( *)```(\w+)\n(.*?)^ *```", path.read_text(), re.M | re.S)
    return [inspect.cleandoc(code) for _, language, code in found if language in languages]


def commands(path, *languages):
    """The words of every ``metaopt`` command in blocks of these languages."""
    for block in blocks(path, *languages):
        for line in block.replace("\\\n", " ").replace("&&", "\n").splitlines():
            found = re.search(r"(?:^|\s)metaopt (\w.*)$", line.strip().rstrip("'"))
            if found and not line.startswith(("import", "from", "tx")):
                yield shlex.split(found[1])


ALL = [
    pytest.param(words, id=f"{path.relative_to(ROOT)}: {' '.join(words)}")
    for path in [*PAGES, *CARDS]
    for words in commands(path, "bash", "text")
]


@pytest.mark.parametrize("words", ALL)
def test_commands_are_understood(words):
    try:
        assert callable(command_line._parse(words))
    except SystemExit as exit:
        assert exit.code == 0 and words[-1] == "--help"


def test_the_first_commands_are_the_two():
    first, second = blocks(README, "bash")[:2]
    assert first == "pip install -e . && metaopt train"
    assert second == "pip install -e '.[test]' && pytest"  # .ci/run takes it from there


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to run in, with the device and the cache that the tests have."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("metaopt.training.placement.prepare_jax", lambda devices=None: None)
    monkeypatch.setattr("metaopt.diagnosis.diagnose.SECONDS", 0.1)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.values["jax_compilation_cache_dir"])
    return tmp_path


@pytest.mark.parametrize("path", RUN)
def test_commands_run_in_order(path, folder, capsys):
    """Those in blocks of bash; training shortened to two outer steps."""
    for words in commands(path, "bash"):
        if words[0] == "train" and "--help" not in words:
            words += SHORTER
        try:
            code = command_line.main(words)
        except SystemExit as exit:
            code = exit.code
        assert not code, (words, capsys.readouterr())


@pytest.mark.parametrize("path", RUN)
def test_python_runs(path, folder):
    for block in blocks(path, "python"):
        exec(block, {})


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
        if not link.startswith("notebooks/") or path == README:
            assert (path.parent / link).exists(), link
        else:  # which the site has beside its pages
            assert (ROOT / link).exists(), link


def test_the_readme_is_short():
    assert len(README.read_text().split()) <= 900


def test_the_shipped_optimizer_trains_a_network():
    import jax.numpy as jnp
    import optax

    import metaopt

    tx = metaopt.load(ROOT / "checkpoints" / "mlp-digits", num_steps=200)
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
