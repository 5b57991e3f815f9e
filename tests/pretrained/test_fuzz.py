"""Whatever is in the files, reading them gives what was written, or one sentence: a UserError."""

import json
import shutil

import jax
import pytest
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metaopt import UserError
from metaopt.config.schema import Component, Config, flat, from_json, to_json
from metaopt.core.files import sha256
from metaopt.pretrained import artefact, importer
from metaopt.pretrained import load as pretrained
from metaopt.pretrained.trace import read_trace
from metaopt.training import digests
from metaopt.training.experiment import build

SHIPPED = ROOT / "checkpoints" / "mlp-digits"

fuzz = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def edited(content: bytes, data: st.DataObject) -> bytes:
    """The content with a piece of it cut out, replaced or doubled."""
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, min(len(content), start + 64)))
    middle = data.draw(st.binary(max_size=8) | st.just(2 * content[start:end]))
    return content[:start] + middle + content[end:]


def replaced(tree, data: st.DataObject):
    """JSON with one value somewhere in it replaced by another, or left out."""
    if isinstance(tree, dict) and tree and data.draw(st.integers(0, 4)):
        name = data.draw(st.sampled_from(sorted(tree)))
        rest = {key: value for key, value in tree.items() if key != name}
        return (
            rest if data.draw(st.integers(0, 5)) == 0 else rest | {name: replaced(tree[name], data)}
        )
    return data.draw(json_values)


def readable(read) -> bool:
    """Whether it reads; any other exception than a UserError ends the test."""
    try:
        read()
    except UserError as error:
        assert str(error) and "\n\n" not in str(error)
        return False
    return True


@fuzz
@given(st.data())
def test_configurations(data):
    """One that is read is a configuration like any other: it builds, or says why not."""
    text = json.dumps(replaced(json.loads(to_json(Config())), data))

    def read():
        config = from_json(text)
        assert flat(config).keys() == flat(Config()).keys()
        build(config)

    readable(read)


@fuzz
@given(st.text() | st.binary().map(lambda b: b.decode("latin-1")))
def test_configurations_that_are_no_json(text):
    readable(lambda: from_json(text))


@fuzz
@given(st.data())
def test_trained_optimizers(tmp_path, data):
    """Edited by someone who mends the digests, so that nothing is found by them."""
    directory = tmp_path / "optimizer"
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(SHIPPED, directory)
    name = data.draw(st.sampled_from([artefact.THETA, artefact.CONFIG, artefact.SUMS]))
    file = directory / name
    if name == artefact.CONFIG and data.draw(st.booleans()):
        file.write_text(json.dumps(replaced(json.loads(file.read_text()), data)))
    else:
        file.write_bytes(edited(file.read_bytes(), data))
    if name != artefact.SUMS:
        lines = (directory / artefact.SUMS).read_text().splitlines()
        mended = [
            f"{artefact.sha256(file)}  {name}" if line.endswith(f"  {name}") else line
            for line in lines
        ]
        (directory / artefact.SUMS).write_text("\n".join(mended) + "\n")
    readable(lambda: pretrained.load(directory, num_steps=200))


@fuzz
@given(st.binary(max_size=200))
def test_public_checkpoints(tmp_path, content):
    (tmp_path / "theta").write_bytes(content)
    readable(lambda: importer.read_msgpack(tmp_path / "theta"))


@fuzz
@given(st.data())
def test_public_checkpoints_that_were_edited(tmp_path, data):
    import flax.serialization

    theta = {"log_lr": jax.numpy.zeros(()), "more": {"kernel": jax.numpy.ones((2, 3))}}
    content = edited(flax.serialization.to_bytes(theta), data)
    (tmp_path / "theta").write_bytes(content)
    out = tmp_path / "out"
    shutil.rmtree(out, ignore_errors=True)
    readable(lambda: importer.import_file(tmp_path / "theta", Component("sgd"), out))


@fuzz
@given(st.data())
def test_checkpoint_sums(tmp_path, data):
    """Found to be damaged, or whole: never an exception."""
    folder = tmp_path / "7"
    folder.mkdir(exist_ok=True)
    (folder / "a").write_bytes(b"content")
    sums = json.dumps({"a": sha256(folder / "a")})
    (folder / digests.SUMS).write_bytes(edited(sums.encode(), data))
    assert digests.find_damage(folder) is None or isinstance(digests.find_damage(folder), str)


@fuzz
@given(st.data())
def test_traces(tmp_path, data):
    (tmp_path / "trace.npz").write_bytes(edited((SHIPPED / "trace.npz").read_bytes(), data))
    readable(lambda: read_trace(tmp_path / "trace.npz"))


def test_deep_nesting_is_a_sentence_too(tmp_path):
    text = "[" * 100_000
    with pytest.raises(UserError):
        from_json(text)
    shutil.copytree(SHIPPED, tmp_path / "optimizer")
    (tmp_path / "optimizer" / artefact.CONFIG).write_text(text)
    with pytest.raises(UserError, match="damaged"):
        pretrained.load(tmp_path / "optimizer")
