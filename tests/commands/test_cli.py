"""The command line, as a person meets it: in a process of its own."""

import gc
import inspect
import json
import os
import random
import re
import shutil
import signal
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

from metaopt.commands import COMMANDS, record_of
from metaopt.commands import main as command_line
from metaopt.evaluation import trials


@pytest.fixture(scope="module")
def trained(cli, tmp_path_factory):
    """A finished run of the tiny recipe, and what was printed."""
    path = tmp_path_factory.mktemp("cli")
    return path / "runs" / "tiny", cli("train", "tiny", "--devices", 2, cwd=path)


def test_a_run_leaves_what_it_says(trained):
    run, process = trained
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    present = {path.name for path in run.iterdir()}
    assert present == {
        "checkpoints", "config.json", "curves.png", "evaluation.json", "evaluation_cache",
        "metrics.jsonl", "optimizer", "report.html", "tensorboard",
    }  # fmt: skip
    for said in ("outer step 50/50", "adam_cosine at ", "report.html", "metaopt.load("):
        assert said in process.stdout
    # The headline, with its interval.
    said = " ".join(process.stdout.split())
    assert re.search(
        r"sgd: (not resolved by 4 seeds: )?[\d.]+ ± [\d.]+ (low|high)er mean test", said
    )


def test_the_metrics_hold_a_line_a_step(trained):
    rows = [json.loads(line) for line in (trained[0] / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [*range(1, 51)]
    names = {"step", "loss", "grad_norm", "unroll_steps", "seconds", "nonfinite_pairs"}
    assert all(names <= row.keys() for row in rows)


def test_the_evaluation_agrees_with_the_losses_it_stores(trained):
    stored = json.loads((trained[0] / "evaluation.json").read_text())
    rows = {row["optimizer"]: row for row in stored["rows"]}
    curves = {name: np.array(curve) for name, curve in stored["mean_curves"]["quadratic"].items()}
    assert list(rows) == list(curves) == ["learned sgd", "adam", "adam_cosine"]
    assert stored["seeds"] == 4 and stored["num_steps"] == 8  # of the recipe, not defaults
    assert rows["adam"]["rate"] in stored["rates"] and len(stored["rates"]) >= 7
    for name, curve in curves.items():
        assert curve.shape == (9,) and curve[0] == curves["adam"][0]
        assert rows[name]["mean"]["test"]["mean"] == pytest.approx(
            np.trapezoid(curve) / 8, rel=1e-5
        )
    assert rows["learned sgd"]["final"]["test"]["mean"] == pytest.approx(curves["learned sgd"][-1])
    assert rows["adam"]["final"]["test"]["mean"] <= curves["adam"][-1] * (1 + 1e-6)
    for change in stored["changes"]:
        ours, theirs = (
            rows[change[who]][change["number"]]["test"]["mean"] for who in ("optimizer", "against")
        )
        assert change["difference"]["mean"] == pytest.approx(ours - theirs, rel=1e-4, abs=1e-7)
    assert len(stored["changes"]) == 4


def test_the_page_is_self_contained(trained):
    page = (trained[0] / "report.html").read_text()
    assert page.count("<svg") == 7
    for said in ("Meta-training", "Use it", "Configuration", "What the columns mean"):
        assert said in page
    assert "in its trained range" in page and "jax" in page
    assert "src=" not in page and "<link" not in page and "<script" not in page
    assert (trained[0] / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def here(monkeypatch, capsys):
    """Runs the command line in this process: ``here(folder, "train", ...) -> code, out, err``."""
    monkeypatch.setattr("metaopt.training.placement.prepare_jax", lambda devices=None: None)

    def run(folder, *args):
        monkeypatch.chdir(folder)
        try:
            code = command_line.main([*map(str, args)])
        except SystemExit as exit:
            code = exit.code
        return code, *capsys.readouterr()

    return run


def test_the_same_command_again_shows_the_result_without_training(here, trained):
    run = trained[0]
    before = (run / "metrics.jsonl").read_bytes()
    code, out, _ = here(run.parent.parent, "train", "tiny", "--devices", "2")
    assert code == 0
    assert "has done its 50 outer steps" in out and "meta-loss" not in out
    assert (run / "metrics.jsonl").read_bytes() == before


def test_quiet_is_quiet(here, trained):
    assert here(trained[0], "train", "tiny", "--quiet", "--out", ".") == (0, "", "")


@pytest.mark.slow
def test_a_report_measured_anew_agrees(here, trained):
    file, cache = trained[0] / "evaluation.json", trained[0] / "evaluation_cache"
    stored = file.read_bytes()
    shutil.rmtree(cache)
    file.unlink()
    code, out, _ = here(trained[0], "train", "tiny", "--out", ".")
    assert code == 0 and "Comparing with tuned adam and adam_cosine" in out
    assert len(list(cache.iterdir())) == 3
    curves = lambda text: json.loads(text)["mean_curves"]["quadratic"]
    for name, losses in curves(stored).items():
        np.testing.assert_allclose(curves(file.read_bytes())[name], losses, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_an_evaluation_that_was_cut_off_resumes(here, trained, monkeypatch):
    """What was measured before a kill is not measured again."""
    cache = trained[0] / "evaluation_cache"
    (trained[0] / "evaluation.json").unlink()
    kept = sorted(cache.iterdir())
    kept[0].unlink()
    before = {path: path.stat().st_mtime_ns for path in kept[1:]}
    fresh = []
    run = trials.run_trial
    monkeypatch.setattr(
        "metaopt.evaluation.evaluate.run_trial",
        lambda *args, **options: (found := run(*args, **options), fresh.append(not found[1]))[0],
    )
    assert here(trained[0], "train", "tiny", "--out", ".", "--quiet")[0] == 0
    assert {path: path.stat().st_mtime_ns for path in kept[1:]} == before
    assert sum(fresh) == 1 and (trained[0] / "evaluation.json").is_file()


FAULTS = [
    (["train", "digit_mlp"], "unknown recipe 'digit_mlp': did you mean 'digits_mlp'?"),
    (["train", "tiny", "--task", "quadratc"], "unknown task 'quadratc': did you mean 'quadratic'?"),
    (["train", "tiny", "--optimizer", "sgdd"], "did you mean 'sgd'? Valid: adafac_mlp, adam,"),
    (["train", "tiny", "--estimator", "nress"], "did you mean 'nres'?"),
    (["train", "tiny", "--problem", "lorentz"], "unknown problem 'lorentz'"),
    (["train", "tiny", "--outer.optimizer", "adan"], "did you mean 'adam'?"),
    (["train", "tiny", "--estimator.sigmaa", "1"], "--estimator.sigma"),
    (["train", "tiny", "--estimator.window", "3"], "window must divide horizon=8, got 3"),
    (["train", "tiny", "--estimator.particles", "0"], "particles must be an integer of at least 1"),
    (["train", "tiny", "--estimator.sigma", "0"], "sigma must be a finite number above 0, got 0"),
    (["train", "tiny", "--estimator.reuse", "4"], "takes no argument 'reuse'"),
    (["train", "tiny", "--estimator", "gpes"], "needs a value for reuse"),
    (
        ["train", "tiny", "--task.args", "dims=3"],
        "takes no argument 'dims'; it takes dim, curvature",
    ),
    (["train", "tiny", "--task.args", "dim"], "arguments are written NAME=VALUE, got 'dim'"),
    (["train", "tiny", "--task.args", "dim=x"], "task 'quadratic'"),
    (["train", "tiny", "--outer-steps", "0"], "outer_steps must be at least 1, got 0"),
    (["train", "tiny", "--outer-steps", "many"], "outer-steps"),
    (
        ["train", "tiny", "--evaluation.seeds", "1"],
        "evaluation.seeds must be at least 2, or 0 for no evaluation, got 1",
    ),
    (["train", "tiny", "--checkpoint-every", "0"], "checkpoint_every must be at least 1, got 0"),
    (
        ["train", "tiny", "--outer.learning-rate", "-1"],
        "outer.learning_rate must be above 0, got -1",
    ),
    (["train", "tiny", "--outer.decay-steps", "1"], "decay_steps must be above warmup_steps=2"),
    (["train", "tiny", "--devices", "3"], "the number of devices must divide particles=4, got 3"),
    (["train", "tiny", "--devices", "1000"], "devices must be 1 to"),
    (["train", "tiny", "--estimator.final-sigma", "0"], "sigma_steps must be at least 1"),
    (
        ["train", "tiny", "--estimator.final-sigma", "0", "--estimator.sigma-steps", "9"],
        "final_sigma must be above 0, got 0.0",
    ),
    (
        ["train", "tiny", "--estimator.shortest-horizon", "9"],
        "longest horizon must be an integer of at least 9, got 8",
    ),
    (["train", "tiny", "--problem", "linear_recursion", "--test-every", "5"], "has no test loss"),
    (
        ["train", "lorenz", "--estimator", "full_es", "--estimator.window", "100"],
        "no argument 'window'",
    ),
    (["compare", "tiny", "--problem", "lorentz"], "unknown problem 'lorentz': did you mean"),
    (["compare", "tiny", "--estimators", "nrs"], "unknown estimator 'nrs': did you mean 'nres'?"),
    (["compare", "tiny", "lorentz"], "unknown recipe 'lorentz': did you mean 'lorenz'?"),
    (["compare", "tiny", "--seeds", "0"], "at least one recipe or run and one seed"),
    (
        ["evaluate", "nowhere"],
        "unknown trained optimizer 'nowhere'; valid: adafac-mlp-digits, fractional-small",
    ),
    (["evaluate"], "name at least one trained optimizer"),
    (["trian"], "train"),
]


@pytest.mark.parametrize("args, said", FAULTS, ids=[" ".join(args) for args, _ in FAULTS])
def test_a_fault_is_one_sentence_and_code_2(here, args, said, tmp_path):
    code, _, errors = here(tmp_path, *args)
    assert code == 2
    assert said in " ".join(errors.split())
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made(here, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    for out in ("file/run", "link", "x" * 300, "a\0b"):
        code, _, errors = here(tmp_path, "train", "tiny", "--out", out)
        assert code == 2
        assert f"{out} cannot be used as a run directory" in errors
    for command in (["evaluate", "x" * 300], ["compare", "x" * 300], ["export", "x" * 300]):
        code, _, errors = here(tmp_path, *command)
        assert code == 2 and "too long" in errors


def test_no_checkpoint_that_can_be_read(here, trained, tmp_path):
    run = shutil.copytree(trained[0], tmp_path / "run")
    for step in (run / "checkpoints").iterdir():
        next((step / "state" / "d").iterdir()).write_bytes(b"damaged")
    before = sorted((run / "checkpoints").rglob("*"))
    code, _, errors = here(tmp_path, "train", "tiny", "--out", "run")
    assert code == 2
    assert "no checkpoint can be read" in errors and "was changed" in errors
    assert "Traceback" not in errors
    assert sorted((run / "checkpoints").rglob("*")) == before


@pytest.mark.parametrize("how", ["flipped bit", "sums gone"])
def test_a_damaged_checkpoint_is_passed_over(here, trained, tmp_path, how):
    run = shutil.copytree(trained[0], tmp_path / "run")
    newest = run / "checkpoints" / "50"
    assert sorted(path.name for path in newest.parent.iterdir())[0] != "50"
    file = max((newest / "state").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    match how:
        case "flipped bit":
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
        case "sums gone":
            (newest / "sha256.json").unlink()
    code, out, errors = here(tmp_path, "train", "tiny", "--out", "run", "--devices", 2)
    assert code == 0, errors
    assert "is damaged; it was set aside" in out
    assert (newest.parent / "damaged-50").is_dir()
    assert outcome(run) == outcome(trained[0])


def test_list_shows_every_catalogue(here, tmp_path):
    code, out, _ = here(tmp_path, "list")
    assert code == 0
    for name in ("digits_mlp", "linear_recursion", "mlp", "nres", "tiny", "sgdm"):
        assert name in out
    shown = " ".join(out.split())
    assert "tiny sgd on quadratic by nres, 4 pairs, windows of 2 of 8 inner steps" in shown
    assert "lorenz_bptt lorenz by bptt, 1 particle, 2000 inner steps" in shown


def test_help_says_what_each_command_does(here, tmp_path):
    code, out, _ = here(tmp_path, "--help")
    assert code == 0
    shown = " ".join(out.replace("│", " ").split())
    for name in COMMANDS:
        command = record_of(name)
        assert f"• {name} {' '.join(inspect.getdoc(command).split())}" in shown


LONG = [
    "train",
    "tiny",
    "--outer-steps",
    1_000,
    "--checkpoint-every",
    50,
    "--evaluation.seeds",
    0,
]


def outcome(run):
    """What has to be the same: theta to the bit, and the metrics but for the clock."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        del row["seconds"]
    return load_file(run / "optimizer" / "theta.safetensors")["log_lr"].tobytes(), rows


def kill_after(process, run, lines, number):
    """Sends a signal once the metrics hold so many lines."""
    metrics = run / "metrics.jsonl"
    while process.poll() is None:
        if metrics.exists() and metrics.read_bytes().count(b"\n") >= lines:
            process.send_signal(number)
            break
        time.sleep(0.005)
    return process.communicate(timeout=120)


@pytest.mark.weekly
def test_asked_to_stop_at_any_moment_a_run_ends_with_the_same_bits(cli, tmp_path):
    """`tests/test_survive.py` kills."""
    undisturbed, run, draw = tmp_path / "undisturbed", tmp_path / "run", random.Random(0)
    process = cli(*LONG, "--out", undisturbed)
    assert process.returncode == 0, process.stderr

    for i, number in enumerate([signal.SIGINT, signal.SIGTERM]):
        process = cli(*LONG, "--out", run, start=True)
        lines = draw.randint(400 * i + 1, 400 * (i + 1))
        said, errors = kill_after(process, run, lines, number)
        assert "Traceback" not in errors
        assert process.returncode == 128 + number, errors
        assert "The same command resumes there" in said
        newest = max(int(path.name) for path in (run / "checkpoints").iterdir())
        # It loses nothing of what was done.
        assert newest == (run / "metrics.jsonl").read_bytes().count(b"\n")

    process = cli(*LONG, "--out", run)
    assert process.returncode == 0, process.stderr
    (theta, rows), (expected_theta, expected_rows) = outcome(run), outcome(undisturbed)
    assert theta == expected_theta
    assert [row["step"] for row in rows] == [*range(1, 1_001)]
    assert rows == expected_rows


@pytest.mark.slow
def test_stopped_while_it_starts_it_leaves_in_peace(cli, tmp_path):
    run = tmp_path / "run"
    process = cli(*LONG, "--out", run, start=True)
    while not (run / "config.json").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in errors


def test_an_interrupt_while_python_imports_is_a_sentence(cli, tmp_path):
    interrupt = "import os, signal; os.kill(os.getpid(), signal.SIGINT); raise SystemExit('on')"
    (tmp_path / "tyro.py").write_text(interrupt)
    process = cli("train", "tiny", cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert (process.returncode, process.stderr) == (130, "metaopt: interrupted.\n")


def test_an_interrupt_during_a_garbage_collection_is_not_forgotten(monkeypatch, capsys):
    """Python ignores what a callback of the collector raises; JAX has one in Python."""

    def interrupted(phase, info):
        gc.callbacks.remove(interrupted)
        raise KeyboardInterrupt

    def command(argv):
        gc.callbacks.append(interrupted)
        gc.collect()
        return lambda: [time.sleep(0.1) for _ in range(600)]  # Python looks up in between

    monkeypatch.setattr(command_line, "_parse", command)
    monkeypatch.setattr(command_line, "use_data_folder", lambda command: None)
    began = time.monotonic()
    assert command_line.main([]) == 130 and time.monotonic() - began < 30
    said = capsys.readouterr().err
    assert "interrupted" in said and "Traceback" not in said


def test_compare_runs_reads_and_draws(here, tmp_path):
    tiny = ("compare", "tiny", "--outer-steps", "4", "--seeds", "2", "--out", "c", "--devices", "1")
    code, out, _ = here(tmp_path, *tiny)
    assert code == 0
    assert "tiny/seed1" in out and "mean over seeds ± 95%" in out
    assert (tmp_path / "c" / "compare.png").read_bytes().startswith(b"\x89PNG")
    (course,) = json.loads((tmp_path / "c" / "compare.json").read_text())
    assert np.shape(course["values"]) == (2, 4)
    assert course["axes"]["updates"] == [1, 2, 3, 4]
    assert course["axes"]["unroll_steps"] == [16, 32, 48, 64]  # 2 N W = 2 * 4 * 2 an update
    assert course["axes"]["sequential_steps"] == [2, 4, 6, 8]
    rows = (tmp_path / "c" / "tiny" / "seed1" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["loss"] for row in rows] == course["values"][1]


def test_a_recipe_follows_its_estimator():
    """`lorenz --estimator pes` has the constants of lorenz_pes."""
    command = command_line._parse(["train", "lorenz", "--estimator.name", "full_es"])
    assert command.config.estimator.particles == 10
    command = command_line._parse(["train", "tiny", "--estimator.name", "pes"])
    assert command.config.estimator.particles == 4
