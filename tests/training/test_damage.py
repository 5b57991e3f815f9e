"""Whatever happens to a run's files, the command resumes it or says in a sentence why not."""

import json
import shutil

import pytest

import metaopt
from metaopt.commands.main import main
from metaopt.core.errors import UserError
from metaopt.training import checkpoints
from metaopt.training.run_directory import RunDirectory, disk_faults

pytestmark = pytest.mark.slow

COMMAND = ["train", "tiny", "--evaluation.seeds", "2", "--evaluation.num-steps", "2", "--quiet"]
COMMAND += ["--checkpoint-every", "2"]
FILES = (
    "config.json",
    "metrics.jsonl",
    "run.lock",
    "report.html",
    "evaluation.json",
    "evaluation_cache",
    "tensorboard",
    "optimizer/theta.safetensors",
    "optimizer/config.json",
    "checkpoints",
    "checkpoints/3/sha256.json",
    "checkpoints/3/state/_METADATA",
)


def damage(path, how):
    """Damages a file, or the largest file of a folder."""
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    file = max(files, key=lambda file: file.stat().st_size if file.exists() else 0)
    content = file.read_bytes() if file.exists() else b""
    match how:
        case "gone":
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        case "empty":
            file.write_bytes(b"")
        case "cut":
            file.write_bytes(content[: len(content) // 2])
        case "bytes":
            file.write_bytes(b"\xff\xfe{}\n3\n" + content[::-1])
        case "a loop":
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            path.symlink_to(path.name)
        case "nested":
            file.write_bytes(b"[" * 100_000 + b"\n")
        case "the other kind":
            is_folder = path.is_dir()
            shutil.rmtree(path) if is_folder else path.unlink(missing_ok=True)
            path.write_text("") if is_folder else path.mkdir()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("metaopt.training.placement.prepare_jax", lambda devices=None: None)
        assert main([*COMMAND, "--outer-steps", "3", "--out", str(folder)]) == 0
    return folder


@pytest.mark.filterwarnings("ignore:.*(left out|has lost|is run again):UserWarning")
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_run_resumes_or_is_refused_in_a_sentence(
    file, run, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("metaopt.training.placement.prepare_jax", lambda devices=None: None)
    # The evaluation is most of the time, and does not look at the other files.
    is_evaluated = file.startswith(("evaluation", "optimizer"))
    command = COMMAND if is_evaluated else [*COMMAND, "--evaluation.seeds", "0"]
    ways = ("gone", "empty", "cut", "bytes", "nested", "the other kind", "a loop")
    for how in ways[::2] if is_evaluated else ways:
        copy = tmp_path / how
        shutil.copytree(run, copy)
        damage(copy / file, how)
        code = main([*command, "--outer-steps", "5", "--out", str(copy)])
        said = capsys.readouterr().err
        if code:
            assert code == 2 and said.startswith("metaopt: "), (how, said)
            lost = file == "config.json" or (file, how) == ("checkpoints", "gone")
            assert how in ("the other kind", "a loop") or lost, (how, said)
            assert "Error(" not in said
        else:
            assert metaopt.Run(copy).finished, how
            if is_evaluated:
                assert json.loads((copy / "evaluation.json").read_text())["seeds"] == 2, how


def test_lines_of_metrics_that_cannot_be_read_are_counted(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    first, *rest = (copy / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    bad = (b"3\n", b"{}\n", b"\xff\n", b'{"step": 2, "loss": %s}\n' % (b"9" * 400))
    (copy / "metrics.jsonl").write_bytes(b"".join((first, *bad, *rest)))
    with pytest.warns(UserWarning, match=r"4 lines of .*metrics.jsonl cannot be read and are left"):
        assert metaopt.read_metrics(copy)["step"].tolist() == [1, 2, 3]
    (copy / "metrics.jsonl").unlink()
    with pytest.warns(UserWarning, match="has lost 3 of its 3 lines up to outer step 3"):
        again = metaopt.train("tiny", outer_steps=4, out=copy, quiet=True)
    assert again.metrics["step"].tolist() == [4]


def test_lines_of_metrics_that_are_lost_are_said_and_a_damaged_file_is_kept(run, tmp_path):
    for kind in ("cut", "changed"):
        file = shutil.copytree(run, tmp_path / kind) / "metrics.jsonl"
        first, second, third = file.read_bytes().splitlines(keepends=True)
        file.write_bytes(first + second + third[:-9] if kind == "cut" else first + b"?\n" + third)
        damaged = file.read_bytes()
        with pytest.warns(UserWarning, match="has lost 1 of its 3 lines up to outer step 3"):
            metaopt.train("tiny", outer_steps=4, out=file.parent, quiet=True)
        left = [1, 2, 4] if kind == "cut" else [1, 3, 4]
        assert metaopt.read_metrics(file.parent)["step"].tolist() == left
        kept = file.with_name("damaged-metrics.jsonl")
        assert kept.read_bytes() == damaged if kind == "changed" else not kept.exists()


def test_lines_that_are_doubled_or_out_of_order_are_put_in_order(run, tmp_path):
    file = shutil.copytree(run, tmp_path / "copy") / "metrics.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[::-1], *lines]))
    metaopt.train("tiny", outer_steps=4, out=file.parent, quiet=True)
    assert file.read_bytes().splitlines(keepends=True)[:3] == lines


@pytest.mark.parametrize("rows, begins", [(20, True), (21, False)])
def test_a_run_that_was_killed_while_it_saved_first_begins_anew(rows, begins, run, tmp_path):
    """Of every 10 steps: the second save waits for the first, and steps after it for the second."""
    folder = tmp_path / "run"
    (folder / "checkpoints" / "10.orbax-checkpoint-tmp").mkdir(parents=True)
    shutil.copy(run / "config.json", folder)
    row = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    lines = [json.dumps(row | {"step": n + 1}) for n in range(rows)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    if begins:
        again = metaopt.train("tiny", outer_steps=2, out=folder, quiet=True)
        assert again.metrics["step"].tolist() == [1, 2]
    else:
        with pytest.raises(metaopt.UserError, match="checkpoints are gone"):
            metaopt.train("tiny", outer_steps=2, out=folder, quiet=True)


def test_files_called_like_checkpoints_are_kept(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "copy") / "checkpoints"
    shutil.rmtree(folder / "3")
    (folder / "3").write_text("of somebody")
    again = metaopt.train("tiny", outer_steps=4, out=folder.parent, quiet=True)
    assert again.finished and (folder / "damaged-3").read_text() == "of somebody"
    for step in ("2", "4"):
        shutil.rmtree(folder / step)
        (folder / step).write_text("")
    with pytest.raises(metaopt.UserError, match=r"no checkpoint can be read: .*a file where a"):
        metaopt.train("tiny", outer_steps=5, out=folder.parent, quiet=True)
    assert (folder / "2").is_file() and (folder / "4").is_file()


def test_a_run_whose_checkpoints_are_gone_does_not_start_anew(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    shutil.rmtree(copy / "checkpoints")
    before = {file: file.read_bytes() for file in copy.rglob("*") if file.is_file()}
    with pytest.raises(metaopt.UserError, match=r"checkpoints are gone.* --start-from"):
        metaopt.train("tiny", outer_steps=4, out=copy, quiet=True)
    assert {file: file.read_bytes() for file in copy.rglob("*") if file.is_file()} == before


def test_checkpoints_of_another_layout_are_refused_and_kept(run, tmp_path, monkeypatch):
    """As those of 0.1, whose theta was a tree."""
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    monkeypatch.setattr(checkpoints.ocp.CheckpointManager, "restore", _mismatch)
    with pytest.raises(metaopt.UserError, match=r"another version .* with --start-from .*copy"):
        metaopt.train("tiny", outer_steps=4, out=copy, quiet=True)
    assert (copy / "checkpoints/3/sha256.json").is_file()


def _mismatch(*args, **options):
    raise ValueError("item and on-disk value metadata tree structures do not match:\n...")


@pytest.mark.parametrize(
    "lost",
    [
        FileNotFoundError(2, "No such file or directory", "checkpoints/5"),
        ValueError("NOT_FOUND: Error opening 4.orbax-checkpoint-tmp/state/manifest.ocdbt"),
        ValueError("Save failed: 5/27 params are missing .zarray in checkpoint"),
    ],
)
def test_checkpoints_that_were_moved_meanwhile_are_a_sentence(lost, tmp_path, monkeypatch):
    """What Orbax was seen to raise, in whatever it raises beside."""

    def fail(*args, **options):
        raise RuntimeError("while saving") from lost

    monkeypatch.setattr(checkpoints.ocp.CheckpointManager, "save", fail)
    said = r"run/checkpoints was moved or removed: put it back and the same command resumes"
    with pytest.raises(UserError, match=said):
        metaopt.train("tiny", outer_steps=2, out=tmp_path / "run", quiet=True)
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError), disk_faults(RunDirectory(tmp_path)):
        raise FileNotFoundError(2, "No such file", "data.csv")  # of a task of one's own
