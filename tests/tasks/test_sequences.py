"""Texts, recurrent nets and transformers: what they must be whatever their numbers are."""

import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metaopt import UserError
from metaopt.config.components import make_task
from metaopt.tasks import rnn_lm, transformer_lm, vit
from metaopt.tasks.attention import Attention
from metaopt.tasks.text import LENGTH, WINDOWS, grammar, text_source


@pytest.fixture(scope="module")
def words():
    return bytes(np.asarray(grammar())).decode()


def test_the_grammar_has_its_structure(words):
    assert len(words) == LENGTH and "\0" not in words
    paragraphs = words.split("\n")[:-1]
    assert all(paragraph.count(".") == 8 for paragraph in paragraphs)
    twice = re.findall(r", ([a-z]{5}) ([a-z]{5})\.", words)
    assert len(twice) > 1000 and all(a == b for a, b in twice)
    assert len({a for a, _ in twice}) > 0.99 * len(twice)  # nothing but copying predicts them
    named = [p for p in paragraphs if len(re.findall(rf"\b{p[:6]}\b", p)) > 1]
    assert len(named) > 100  # a name comes back
    assert len({p[:6] for p in named}) > 0.9 * len(named)
    assert words.startswith(bytes(np.asarray(grammar(length=200))).decode())
    other = bytes(np.asarray(grammar(length=200, seed=1))).decode()
    assert other != words[:200]


def test_verbs_depend_on_the_noun_before_them(words):
    """Each quarter of the nouns has six verbs of its own."""
    pairs = re.findall(r"(?:^|\. |\n)(?:the|a) (\w+) (\w+) (?:the|a) ", words)
    verbs: dict[str, Counter] = {}
    for noun, verb in pairs:
        verbs.setdefault(noun, Counter())[verb] += 1
    frequent = [of for of in verbs.values() if of.total() > 50]
    assert len(frequent) > 10 and max(len(of) for of in frequent) <= 12
    assert len({verb for of in frequent for verb in of}) > 18


def test_a_batch_is_of_windows_of_its_split():
    source = text_source("grammar", "bytes", 4, 16)
    data = source.data()
    whole = np.concatenate([data[split]["text"] for split in ("train", "valid", "test")])
    np.testing.assert_array_equal(whole, np.asarray(grammar()))
    tokens = source.batch(data, (), "valid", jax.random.key(0))["tokens"]
    assert tokens.shape == (4, 17) and tokens.dtype == jnp.int32
    text = bytes(data["valid"]["text"])
    assert all(bytes(np.asarray(row, np.uint8)) in text for row in tokens)
    assert source.batch(data, (), "test", None)["tokens"].shape == (WINDOWS, 17)


def test_a_file_of_the_users(tmp_path):
    file = tmp_path / "own.txt"
    file.write_bytes("äb\n".encode() * 50)
    source = text_source(str(file), "characters", 2, 3)
    with pytest.warns(UserWarning, match="50% of .*own.txt is none of the 97 characters"):
        data = source.data()
    codes = np.concatenate([part["text"] for part in data.values()])
    assert codes[:4].tolist() == [96, 96, ord("b") - 32, 95]
    task = make_task(f"rnn_lm text={file} level=bytes length=8 size=4 embedding=2")
    batch = task.batch(task.data(), (), "train", jax.random.key(0))
    assert task.loss((), task.init((), jax.random.key(1)), batch, None) > 0
    with pytest.raises(UserError, match="has 200 tokens: too few for a length of 20"):
        text_source(str(file), "bytes", 2, 20)


MODELS = {
    "lstm": rnn_lm(size=5, embedding=3, length=9),
    "gru": rnn_lm(cell="gru", size=5, embedding=3, length=9),
    "irnn": rnn_lm(cell="irnn", size=5, embedding=3, length=9),
    "vanilla": rnn_lm(cell="vanilla", size=5, embedding=3, length=9),
    "transformer": transformer_lm(width=8, heads=2, length=9),
}


@pytest.mark.parametrize("name", MODELS)
def test_no_position_sees_what_comes_after_it(name, monkeypatch):
    """Logits up to a position are the same whatever follows, and other ones from there on."""
    seen = []
    real = optax.softmax_cross_entropy_with_integer_labels
    keep = lambda logits, labels: seen.append(logits) or real(logits, labels)
    monkeypatch.setattr(optax, "softmax_cross_entropy_with_integer_labels", keep)
    task = MODELS[name]
    params = jax.tree.map(lambda leaf: leaf + 0.3, task.init((), jax.random.key(0)))
    tokens = jax.random.randint(jax.random.key(1), (1, 10), 0, 97)
    for row in (tokens, tokens.at[0, 6:].add(-tokens[0, 6:])):
        task.loss((), params, {"tokens": row}, None)
    one, other = seen
    assert one.shape == (1, 9, 97)
    np.testing.assert_allclose(one[:, :6], other[:, :6], rtol=1e-6)
    assert (np.abs(one - other)[:, 6:].max(axis=-1) > 1e-4).all()


def test_attention_is_the_formulas():
    """softmax(Q K^T / sqrt(d)) V of two heads, in NumPy."""
    model, x = Attention(2), jax.random.normal(jax.random.key(0), (1, 3, 4))
    params = model.init(jax.random.key(1), x)["params"]
    into, out = (jax.tree.map(np.float64, params[f"Dense_{i}"]) for i in range(2))
    q, k, v = np.split(np.float64(x[0]) @ into["kernel"], 3, axis=-1)
    mixed = []
    for head in (slice(0, 2), slice(2, 4)):
        scores = np.exp(q[:, head] @ k[:, head].T / np.sqrt(2))
        mixed.append(scores / scores.sum(axis=1, keepdims=True) @ v[:, head])
    expected = np.concatenate(mixed, axis=1) @ out["kernel"]
    np.testing.assert_allclose(model.apply({"params": params}, x)[0], expected, atol=1e-5)


def test_an_irnn_starts_as_a_sum():
    """With the identity as its recurrent kernel, and inputs above 0, the state adds them up."""
    task = rnn_lm(cell="irnn", size=4, embedding=2, length=3)
    params = task.init((), jax.random.key(0))
    np.testing.assert_array_equal(params["recurrent"]["recurrent"], np.eye(4))


def test_a_transformer_tells_places_apart_and_an_image_its_patches():
    task = vit(width=8, heads=2, layers=1)
    params = task.init((), jax.random.key(0))
    image = task.data()["train"]["image"][:2]
    moved = image.reshape(2, 2, 4, 8, 1)[:, ::-1].reshape(image.shape)  # halves exchanged
    losses = [
        task.loss((), params, {"image": one, "label": np.zeros(2, np.int32)}, None)
        for one in (image, moved)
    ]
    assert abs(losses[0] - losses[1]) > 1e-6
    flat = params | {"Positions_0": {"embedding": jnp.zeros((16, 8))}}
    same = [
        task.loss((), flat, {"image": one, "label": np.zeros(2, np.int32)}, None)
        for one in (image, moved)
    ]
    np.testing.assert_allclose(*same, rtol=1e-5)
