"""Exported optimizers: they come back as they were, or say what is wrong with them."""

import hashlib
import json
import shlex
import shutil
import tomllib
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import ROOT
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import metaopt
from metaopt.commands import main as command_line
from metaopt.config.recipes import RECIPES
from metaopt.config.schema import Component, Config, OuterConfig, from_json
from metaopt.core.interval import Interval
from metaopt.estimators import PES
from metaopt.exporting.card import card
from metaopt.exporting.command import to_command
from metaopt.pretrained import load as pretrained
from metaopt.pretrained import shipped, trace
from metaopt.pretrained.gains import changes_in
from metaopt.training.loop import train

SHIPPED = sorted(path for path in (ROOT / "checkpoints").iterdir() if (path / "CARD.md").is_file())
FILES = ["CARD.md", "SHA256SUMS", "config.json", "curves.png", "eval.json", "theta.safetensors"]
FILES += ["trace.npz"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where ``runs/small`` is finished, and ``small`` exported from it."""
    path = tmp_path_factory.mktemp("pretrained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.setattr("metaopt.training.placement.prepare_jax", lambda devices=None: None)
        train = ["train", "tiny", "--out", "runs/small", "--outer-steps", "5", "--seed", "3"]
        assert command_line.main([*train, "--quiet", "--devices", "1"]) == 0
        assert command_line.main(["export", "runs/small", "--name", "small"]) == 0
    return path


@pytest.fixture
def exported(folder, tmp_path):
    """A copy that a test may spoil."""
    return Path(shutil.copytree(folder / "small", tmp_path / "small"))


@pytest.fixture
def main(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("metaopt.training.placement.prepare_jax", lambda devices=None: None)

    def run(*argv):
        code = command_line.main([*map(str, argv)])
        return code, *capsys.readouterr()

    return run


def seal(directory):
    """Digests of the files as they are."""
    names = [line.split("  ")[1] for line in (directory / "SHA256SUMS").read_text().splitlines()]
    digest = lambda name: hashlib.sha256((directory / name).read_bytes()).hexdigest()
    (directory / "SHA256SUMS").write_text("".join(f"{digest(name)}  {name}\n" for name in names))


def describe(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_an_exported_optimizer_is_the_runs(folder, exported):
    assert sorted(path.name for path in exported.iterdir()) == FILES
    theta, expected = pretrained.read(exported)[1], pretrained.read(folder / "runs" / "small")[1]
    jax.tree.map(np.testing.assert_array_equal, theta, expected)
    tx, params = metaopt.load(exported, num_steps=8), jnp.ones(4)
    updates = tx.update(2 * params, tx.init(params), params, value=jnp.float32(1.0))[0]
    np.testing.assert_allclose(updates, -2 * np.exp(theta["log_lr"]) * np.ones(4), rtol=1e-6)


def test_it_says_what_it_is(folder, exported):
    described = json.loads((exported / "config.json").read_text())
    assert described["trained_on"]["outer_steps"] == 5
    assert described["trained_on"]["unroll_steps"] == 5 * 2 * 4 * 2
    assert described["trained_range"] == {
        "num_steps": [8, 8],
        "largest_tensor": 4,
        "parameters": {"theta": [4]},
    }
    assert described["recipe"]["seed"] == 3 and described["versions"]["jax"] == jax.__version__
    with safe_open(exported / "theta.safetensors", "numpy") as file:
        header = json.loads(file.metadata()["metaopt"])
    assert header == {"schema": 2, "optimizer": {"name": "sgd", "args": []}}
    stored = json.loads((folder / "runs" / "small" / "evaluation.json").read_text())
    assert json.loads((exported / "eval.json").read_text()) == stored
    card = (exported / "CARD.md").read_text()
    assert "metaopt train tiny --outer-steps 5 --seed 3\n" in card
    mean, final = (change.difference for change in changes_in(stored)[:2])
    assert f"| **difference to adam** | {mean.text(sign='+')} | {final.text(sign='+')} |" in card
    assert "| adam_cosine, tuned |" in card and "](curves.png)" in card


@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_is_noticed(exported, name):
    content = bytearray((exported / name).read_bytes())
    content[len(content) // 2] ^= 1
    (exported / name).write_bytes(content)
    with pytest.raises(metaopt.UserError, match=r"is damaged .*: fetch it anew, or"):
        metaopt.load(exported)
    (exported / name).unlink()
    said = "no trained optimizer" if name == "theta.safetensors" else "is damaged"
    with pytest.raises(metaopt.UserError, match=said):
        metaopt.load(exported)


def test_a_file_without_a_digest_is_noticed(exported):
    lines = (exported / "SHA256SUMS").read_text().splitlines(keepends=True)
    (exported / "SHA256SUMS").write_text("".join(lines[1:]))
    with pytest.raises(metaopt.UserError, match=r"theta.safetensors not as SHA256SUMS has it"):
        metaopt.load(exported)


def test_a_newer_schema_is_refused(exported):
    describe(exported, schema=3, files="elsewhere")
    with pytest.raises(
        metaopt.UserError, match="schema 3, this version reads 2 and older: upgrade"
    ):
        metaopt.load(exported)


def test_the_theta_of_another_optimizer_is_refused(exported):
    describe(exported, optimizer={"name": "sgdm", "args": []})
    seal(exported)
    with pytest.raises(metaopt.UserError, match=r"is of sgd\(\), but config.json says sgdm\(\)"):
        metaopt.load(exported)


@pytest.mark.parametrize(
    "optimizer, said",
    [
        (Component("sgdm"), "log_one_minus_momentum is missing"),
        (Component("sgdd"), "unknown learned optimizer 'sgdd': did you mean 'sgd'?"),
    ],
)
def test_a_wrong_architecture_is_refused(exported, optimizer, said):
    metaopt.pretrained.artefact.write(exported, optimizer, {"log_lr": jnp.float32(-1.0)})
    with pytest.raises(metaopt.UserError) as error:
        metaopt.load(exported)
    assert str(error.value).startswith(f"{exported}: ") and said in str(error.value)


def test_the_first_schema_is_still_read(exported):
    """As a run of an older version has it: no digests, no trained range."""
    for name in set(FILES) - {"theta.safetensors"}:
        (exported / name).unlink()
    first = {"schema": 1, "optimizer": {"name": "sgd", "args": []}}
    (exported / "config.json").write_text(json.dumps(first))
    with pytest.raises(
        metaopt.UserError, match=r"config.json has schema 1, theta.safetensors a la"
    ):
        metaopt.load(exported)
    without_header(exported)
    with pytest.warns(UserWarning, match="is of metaopt 0.1 and has no digests"):
        metaopt.load(exported, num_steps=10**6).init(jnp.zeros(1000))


def without_header(folder, **change):
    """Writes theta anew as version 0.1 did, some leaves changed."""
    flat = load_file(folder / "theta.safetensors") | change
    save_file(flat, folder / "theta.safetensors")


def test_an_older_schema_does_not_switch_digests_off(exported):
    describe(exported, schema=1)
    without_header(exported)
    with pytest.raises(metaopt.UserError, match=r"theta.safetensors not as SHA256SUMS has it"):
        metaopt.load(exported)


def test_a_theta_that_is_not_finite_is_refused_wherever_it_is_read(exported, main):
    (exported / "SHA256SUMS").unlink()
    (exported / "config.json").write_text(
        json.dumps({"schema": 1, "optimizer": {"name": "sgd", "args": []}})
    )
    without_header(exported, log_lr=np.array(np.nan, np.float32))
    said = r"theta in .*theta.safetensors is not finite \(log_lr\)"
    for read in (metaopt.load, metaopt.load_theta):
        with pytest.raises(metaopt.UserError, match=said):
            read(exported)
    for command in (["train", "tiny", "--out", "runs/nan", "--start-from"], ["evaluate"]):
        code, _, errors = main(*command, exported)
        assert code == 2 and "is not finite (log_lr)" in errors and errors.count("\n") == 1


@pytest.mark.slow
def test_a_run_starts_from_anothers_theta(folder, main):
    """Its first checkpoint is before any update: a rate of 0 in the warm-up's first step."""
    again = ["train", "tiny", "--start-from", "runs/small", "--out", "runs/on", "--quiet"]
    code, _, errors = main(*again, "--outer-steps", "1", "--devices", "1")
    assert code == 0, errors
    theta, before = (pretrained.read(folder / "runs" / run)[1] for run in ("on", "small"))
    jax.tree.map(np.testing.assert_array_equal, theta, before)
    assert "--start-from runs/small" in to_command(
        from_json((folder / "runs" / "on" / "config.json").read_text())
    )
    # Once begun it needs it no more; a run that has not begun does.
    (folder / "runs" / "small").rename(folder / "moved")
    try:
        assert main(*again, "--outer-steps", "2", "--devices", "1")[0] == 0
        said = json.loads((folder / "runs" / "on" / "optimizer" / "config.json").read_text())
        assert said["started_from"]["recipe"]["start_from"] is None
        code, _, errors = main(*again[:5], "runs/other", "--devices", "1")
        assert code == 2 and "runs/small holds no trained optimizer" in errors
    finally:
        (folder / "moved").rename(folder / "runs" / "small")
    code, _, errors = main("train", "tiny", "--start-from", "mlp-digits", "--out", "runs/no")
    assert code == 2
    assert (
        "start_from: " in errors and "theta does not fit its optimizer: log_lr is missi" in errors
    )


def test_unknown_names_list_what_is_there(folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(metaopt.UserError) as error:
        metaopt.load("mlp-digit")
    assert "did you mean 'mlp-digits'? Valid: adafac-mlp-digits, fractional-small" in str(
        error.value
    )
    assert "runs/small" in str(error.value)
    with pytest.raises(metaopt.UserError, match=r"one of .*mlp-digits"):
        metaopt.load("nowhere/mlp-digits")


def test_far_outside_the_trained_range_it_warns_once(exported):
    with pytest.warns(metaopt.OutsideTrainedRange) as caught:
        tx = metaopt.load(exported, num_steps=17)
        metaopt.load(exported, num_steps=3)
        for size in (9, 10):
            jax.eval_shape(tx.init, {"w": jnp.zeros(size)})  # traced, as under jit
    said = [str(warning.message) for warning in caught]
    assert [warning.filename for warning in caught[:2]] == [__file__] * 2
    assert "was trained for 8 steps (here 17): it may" in said[0] and "(here 3):" in said[1]
    assert "on tensors of up to 4 elements (here 9):" in said[2]
    assert len(said) == 3 and not any("\n" in text for text in said)


@pytest.mark.parametrize("num_steps", [None, 4, 8, 16])
def test_within_it_does_not(exported, num_steps):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metaopt.load(exported, num_steps=num_steps).init({"w": jnp.zeros(8), "none": ()})
        jax.jit(lambda steps: metaopt.load(exported, steps).init(jnp.zeros(4)))(10**6)


def test_the_range_covers_depth_number_and_kind():
    """A transformer's tensors and a convolution's, for what was trained on small dense networks."""
    block = {name: jnp.zeros((64, 64)) for name in "qkvo"} | {"bias": jnp.zeros(64)}
    tx = metaopt.load("gated-adam-small", num_steps=200)
    with pytest.warns(metaopt.OutsideTrainedRange) as caught:
        jax.eval_shape(tx.init, {"blocks": [block] * 4, "conv": jnp.zeros((3, 3, 1, 4))})
    (said,) = (str(warning.message) for warning in caught)
    for part in (
        "8 tensors in all (here 21)",
        "4 tensors with weights (here 17)",
        "of 1 or 2 axes (here 4)",
    ):
        assert part in said


def test_what_is_loaded_says_what_it_is():
    tx = metaopt.load("gated-adam-small", num_steps=200)
    init, update = tx
    assert callable(init) and callable(update)
    assert tx.name == "gated-adam-small" and tx.trained_range[:3] == (50, 200, 2048)
    assert tx.origin["trained_on"]["task"] == "small_mlps" and (tx.directory / "CARD.md").is_file()
    theta = pretrained.read("gated-adam-small")[1]
    jax.tree.map(np.testing.assert_array_equal, tx.theta, theta)


@pytest.mark.parametrize("jit", [True, False])
def test_num_steps_that_are_passed_are_said_once(jit):
    """By 10%, with MultiSteps, which counts micro-batches, and after an interruption."""
    params = jnp.ones(2)
    tx = optax.MultiSteps(
        metaopt.load("scheduled-adam-small", num_steps=100, warn_when_passed=True), 2
    )
    state = tx.init(params)
    state = state._replace(
        inner_opt_state=state.inner_opt_state._replace(count=jnp.int32(109))  # as it was saved
    )

    def update(state):
        with jax.numpy_dtype_promotion("standard"):  # optax mixes counters and floats
            return tx.update(params, state, params)[1]

    update = jax.jit(update) if jit else update
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state = jax.block_until_ready(update(update(state)))
        jax.effects_barrier()
    assert int(state.inner_opt_state.count) == 110
    with pytest.warns(
        metaopt.OutsideTrainedRange, match="num_steps=100 and has done 111"
    ) as caught:
        for _ in range(6):
            state = update(state)
        jax.block_until_ready(state)
        jax.effects_barrier()
    assert len(caught) == 1


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_what_is_shipped_steps_as_it_was_recorded(path):
    optimizer, theta = pretrained.read(path.name)
    recorded = trace.read_trace(path / "trace.npz")
    assert trace.deviation(optimizer, theta, recorded) < 1e-5
    assert shipped.directory_of(path.name) == path
    assert json.loads((path / "config.json").read_text())["name"] == path.name


def test_drift_shows(exported):
    optimizer, theta = pretrained.read(exported)
    recorded = trace.read_trace(exported / "trace.npz")
    assert trace.deviation(optimizer, theta, recorded) < 1e-6
    off = {"log_lr": theta["log_lr"] + 1e-4}
    assert trace.deviation(optimizer, off, recorded) == pytest.approx(1e-4, rel=0.1)


def parsed(command):
    program, *argv = shlex.split(command)
    assert program == "metaopt"
    argv = [command_line.SHORT.get(word, word) for word in argv]
    return command_line._parse(argv).config


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_the_commands_on_a_card_are_its_recipes(path):
    """What theta started from comes first."""
    text = (path / "CARD.md").read_text()
    commands = [part.partition("\n```")[0] for part in text.split("```bash\n")[1:]]
    made, recipes = json.loads((path / "config.json").read_text()), []
    while made:
        recipes.insert(0, from_json(json.dumps(made["recipe"])))
        made = made.get("started_from")
    assert [parsed(command) for command in commands] == recipes


OTHER = Config(
    task=Component("digits_mlp", ("hidden=[4, 4]", "activation=tanh")),
    estimator=PES(shortest_horizon=20, sigma=1e-3),
    outer=OuterConfig(clip_norm=None, frozen=("layer_0", "layer_1/bias")),
)


@pytest.mark.parametrize("config", [OTHER, *RECIPES.values()], ids=["several fields", *RECIPES])
def test_every_configuration_has_a_command(config):
    assert parsed(to_command(config)) == config


def test_export_refuses_what_is_no_pretrained_optimizer(main, folder, tmp_path):
    run = Path(shutil.copytree(folder / "runs" / "small", tmp_path / "run"))
    for argv, said in (
        (["runs/small", "--name", "small"], "small holds something already (CARD.md)"),
        (["runs/small", "--name", "a/b"], "a name has letters, digits"),
        (["runs/smal", "--name", "b"], "runs/smal holds no run"),
    ):
        code, _, error = main("export", *argv)
        assert code == 2 and said in error and error.count("\n") == 1
    (run / "evaluation.json").unlink()
    code, _, error = main("export", run, "--name", "b")
    assert code == 2 and "`metaopt train` command that made it, called again" in error
    describe(run, outer_steps=9)
    code, _, error = main("export", run, "--name", "b")
    assert code == 2 and "has done 5 of 9 outer steps" in error
    assert not (folder / "b").exists()


def test_the_list_shows_trained_optimizers_and_their_gain(main, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = main("list")
    rows = {
        name: about.strip()
        for name, _, about in (line.strip().partition("  ") for line in out.splitlines())
    }
    assert code == 0
    assert rows["mlp-digits"].startswith("mlp on digits_mlp, 200 steps: ")
    gain = "0.0634 ± 0.0090 lower mean test loss than tuned adam (0.2657)"  # of version 0.1
    assert rows["mlp-digits"].endswith(gain)
    assert rows["runs/small"].startswith("sgd on quadratic, 8 steps: ")
    assert "mean test loss than tuned adam (" in rows["runs/small"]


def test_an_evaluation_of_another_theta_is_none(folder, tmp_path):
    run = Path(shutil.copytree(folder / "runs" / "small", tmp_path / "run"))
    assert "not evaluated" not in shipped.summary(run)
    metaopt.pretrained.artefact.write(
        run / "optimizer", Component("sgd"), {"log_lr": jnp.float32(-1.0)}
    )
    assert shipped.summary(run) == "sgd: not evaluated"


OF_0_1 = [path for path in SHIPPED if '"changes"' not in (path / "eval.json").read_text()]


@pytest.mark.parametrize("path", OF_0_1, ids=lambda path: path.name)
def test_evaluations_of_version_0_1_are_read_by_lists_and_cards(path):
    """They hold ratios of losses: what is shown are the differences that these were made of."""
    evaluation = json.loads((path / "eval.json").read_text())
    summary = evaluation["summary"]
    for change in changes_in(evaluation):
        of = lambda who, loss=f"{change.number}_loss": summary[who][loss]["mean"]
        assert change.difference.mean == pytest.approx(of("learned") - of("adam"), rel=1e-5)
        assert change.seeds == evaluation["seeds"] and change.against == "adam"
    text = card(json.loads((path / "config.json").read_text()), evaluation, picture=True)
    assert f"| this optimizer | {Interval(**summary['learned']['mean_loss'])} | " in text


@pytest.mark.parametrize("adams, ours", [(-0.376, 0.862), (2.0, 2.5), (-1.0, -0.5)])
def test_worse_is_called_worse_in_an_evaluation_of_version_0_1(adams, ours):
    """Of a negative loss the stored ratio has the wrong sign, and the difference the right one."""
    about = lambda mean: {"mean": mean, "half_width": abs(mean) / 100}
    players = {
        who: {"mean_loss": about(mean), "final_loss": about(mean)}
        for who, mean in (("adam", adams), ("learned", ours), ("change", ours / adams - 1))
    }
    stored = {"seeds": 4, "of": {"task": {"name": "density"}}, "summary": players}
    mean, _ = changes_in(stored)
    assert mean.verdict == "higher"
    assert mean.difference.mean == pytest.approx(ours - adams)
    assert "higher mean test loss than tuned adam" in mean.sentence()


def test_wheels_carry_every_file():
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = setup["tool"]["setuptools"]
    carried = {
        path
        for pattern in packages["package-data"]["metaopt.checkpoints"]
        for path in (ROOT / "checkpoints").glob(pattern)
    }
    files = {path for folder in SHIPPED for path in folder.rglob("*") if path.is_file()}
    assert SHIPPED and files <= carried
    assert setup["project"]["entry-points"][shipped.GROUP] == {"metaopt": "metaopt.checkpoints"}


@pytest.mark.filterwarnings("ignore::metaopt.OutsideTrainedRange")
def test_a_learning_rate_of_the_users(tmp_path):
    """For an optimizer that leaves it to its user; the others say which do."""
    config = Config(
        task=Component("quadratic", ("dim=2",)),
        optimizer=Component("gated_muon", ("hidden=[2]",)),
        estimator=PES(particles=2, horizon=4, window=2),
        outer_steps=1,
    )
    train(config, tmp_path / "run")
    params = {"w": jnp.ones((3, 2))}
    first = lambda tx: tx.update(params, tx.init(params), params)[0]["w"]
    tenth = first(metaopt.load(tmp_path / "run", learning_rate=0.1))
    half = first(metaopt.load(tmp_path / "run", learning_rate=lambda step: 0.05 + 0.0 * step))
    np.testing.assert_allclose(tenth, 2 * half, rtol=1e-6)
    assert not np.allclose(tenth, first(metaopt.load(tmp_path / "run", num_steps=4)))
    with pytest.raises(ValueError, match="needs to know how many steps"):
        metaopt.load(tmp_path / "run")
    with pytest.raises(metaopt.UserError, match="mlp has a learning rate of its own"):
        metaopt.load("mlp-digits", num_steps=200, learning_rate=0.1)
    with pytest.raises(metaopt.UserError, match="at least 0, got -1"):
        metaopt.load(tmp_path / "run", learning_rate=-1)
