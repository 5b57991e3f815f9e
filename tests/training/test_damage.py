"""Whatever happens to a run's files, the command resumes it or says in a sentence why not."""

import json
import shutil

import pytest

import metaopt
from metaopt.commands.main import main
from metaopt.core.errors import UserError
from metaopt.training import checkpoints
from metaopt.training.run_directory import RunDirectory, disk_faults

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


@pytest.mark.filterwarnings("ignore:.*(left out|has lost outer steps|is run again):UserWarning")
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_run_resumes_or_is_refused_in_a_sentence(
    file, run, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("metaopt.training.placement.prepare_jax", lambda devices=None: None)
    # The evaluation is most of the time, and does not look at the other files.
    is_evaluated = file.startswith(("evaluation", "optimizer"))
    command = COMMAND if is_evaluated else [*COMMAND, "--evaluation.seeds", "0"]
    for how in ("gone", "empty", "cut", "bytes", "the other kind"):
        copy = tmp_path / how
        shutil.copytree(run, copy)
        damage(copy / file, how)
        code = main([*command, "--outer-steps", "5", "--out", str(copy)])
        said = capsys.readouterr().err
        if code:
            assert code == 2 and said.startswith("metaopt: "), (how, said)
            assert how == "the other kind" or file == "config.json", (how, said)
        else:
            assert metaopt.Run(copy).finished, how
            if is_evaluated:
                assert json.loads((copy / "evaluation.json").read_text())["seeds"] == 2, how


def test_lines_of_metrics_that_cannot_be_read_are_counted(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    first, *rest = (copy / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (copy / "metrics.jsonl").write_bytes(b"".join((first, b"3\n", b"{}\n", b"\xff\n", *rest)))
    with pytest.warns(UserWarning, match=r"3 lines of .*metrics.jsonl cannot be read and are left"):
        assert metaopt.read_metrics(copy)["step"].tolist() == [1, 2, 3]
    (copy / "metrics.jsonl").unlink()
    with pytest.warns(UserWarning, match="has lost outer steps 1 to 3"):
        again = metaopt.train("tiny", outer_steps=4, out=copy, quiet=True)
    assert again.metrics["step"].tolist() == [4]


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


def test_checkpoints_that_were_moved_meanwhile_are_a_sentence(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    lost = FileNotFoundError(2, "No such file", "/a/checkpoints/4.orbax-checkpoint-tmp/state/d")
    said = r"run cannot be written \(checkpoints/ was moved or removed\): mend that and the same"
    with pytest.raises(UserError, match=said), disk_faults(directory):
        try:
            raise lost
        except OSError as error:
            raise ValueError("while saving") from error
    with pytest.raises(FileNotFoundError), disk_faults(directory):
        raise FileNotFoundError(2, "No such file", "data.csv")  # of a task of one's own
