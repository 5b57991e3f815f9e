"""Language models: recurrent nets and transformers that predict the next character of a text."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from metaopt import Task
from metaopt.tasks.attention import Positions, Transformer
from metaopt.tasks.fresh import fresh_parameters
from metaopt.tasks.supervised import one_of, positive
from metaopt.tasks.text import text_source

CELLS = {"vanilla": 1, "irnn": 1, "gru": 3, "lstm": 4}
"""Kinds of recurrent nets, each with how many numbers a unit takes from its input."""


class _Recurrent(nn.Module):
    """One recurrent layer over ``[n, length, features]``; the state starts at 0.

    The input's part of all steps is one product before the loop. ``irnn`` is the vanilla net with
    ReLU that starts with the identity as its recurrent kernel (Le et al. 2015, arXiv 1504.00941).
    """

    size: int
    cell: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        gates = CELLS[self.cell] * self.size
        kernel = self.param("recurrent", nn.initializers.lecun_normal(), (self.size, gates))
        from_input = nn.Dense(gates)(x)
        zeros = jnp.zeros((x.shape[0], self.size), jnp.float32)

        def step(carry, now):
            h, c = carry
            before = h @ kernel
            if self.cell in ("vanilla", "irnn"):
                h = (jnp.tanh if self.cell == "vanilla" else nn.relu)(now + before)
            elif self.cell == "gru":
                update, reset, new = jnp.split(now, 3, axis=-1)
                u, r, b = jnp.split(before, 3, axis=-1)
                keep = nn.sigmoid(update + u)
                h = keep * h + (1 - keep) * jnp.tanh(new + nn.sigmoid(reset + r) * b)
            else:
                i, f, o, g = jnp.split(now + before, 4, axis=-1)
                c = nn.sigmoid(f + 1) * c + nn.sigmoid(i) * jnp.tanh(g)
                h = nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        _, hidden = jax.lax.scan(step, (zeros, zeros), from_input.swapaxes(0, 1), unroll=4)
        return hidden.swapaxes(0, 1)


class _RecurrentModel(nn.Module):
    vocabulary: int
    embedding: int
    size: int
    cell: str

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = nn.Embed(self.vocabulary, self.embedding)(tokens)
        x = _Recurrent(self.size, self.cell, name="recurrent")(x)
        return nn.Dense(self.vocabulary, name="head")(x)


class _TransformerModel(nn.Module):
    vocabulary: int
    width: int
    heads: int
    layers: int

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = Positions()(nn.Embed(self.vocabulary, self.width)(tokens))
        x = Transformer(self.layers, self.heads, 4 * self.width, causal=True)(x)
        return nn.Dense(self.vocabulary, name="head")(x)


def rnn_lm(
    *,
    cell: str = "lstm",
    size: int = 64,
    embedding: int = 32,
    text: str = "grammar",
    level: str = "characters",
    batch_size: int = 32,
    length: int = 32,
) -> Task:
    """A recurrent net that predicts the next character: cross-entropy in nats, a mean over all.

    Args:
      cell: ``"vanilla"`` (tanh), ``"irnn"``, ``"gru"`` or ``"lstm"``.
      size: of the state.
      embedding: numbers of a character's vector.
      text: ``"grammar"``, which is embedded, ``"king_james"``, or a file; `metaopt.tasks.text`.
      level: ``"characters"``, 97 kinds of them, or ``"bytes"``, 256.
      batch_size: sequences a batch, at random places of the split.
      length: characters that are predicted in each; the state does not pass from one to the next.

    Raises:
      ValueError: for a value out of its range.
      UserError: for a text that is not here.

    Examples:
      >>> params = rnn_lm(cell="gru", size=8, embedding=4).init((), jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(params))
      1573
    """
    one_of(CELLS, cell=cell)
    positive(size=size, embedding=embedding)
    source = text_source(text, level, batch_size, length)
    model = _RecurrentModel(source.vocabulary, embedding, size, cell)
    fresh = fresh_parameters(model, (length,), dtype=jnp.int32)

    def init(config, key):
        params = fresh(config, key)
        if cell == "irnn":
            params["recurrent"]["recurrent"] = jnp.eye(size, dtype=jnp.float32)
        return params

    return _task(source, model, init)


def transformer_lm(
    *,
    width: int = 32,
    heads: int = 4,
    layers: int = 2,
    text: str = "grammar",
    level: str = "characters",
    batch_size: int = 8,
    length: int = 32,
) -> Task:
    """A decoder-only transformer that predicts the next character: cross-entropy in nats.

    Norms before attention and feedforward (four times as wide, GELU), learned positions.

    Args:
      width: of the model, a multiple of ``heads``.
      heads: of every block.
      layers: blocks.
      text, level, batch_size, length: as for `rnn_lm`.

    Raises:
      ValueError: for a value out of its range.
      UserError: for a text that is not here.

    Examples:
      >>> params = transformer_lm(width=8, heads=2, layers=1).init((), jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(params))
      2793
    """
    positive(width=width, heads=heads, layers=layers)
    if width % heads:
        raise ValueError(f"width must be a multiple of heads={heads}, got {width!r}.")
    source = text_source(text, level, batch_size, length)
    model = _TransformerModel(source.vocabulary, width, heads, layers)
    return _task(source, model, fresh_parameters(model, (length,), dtype=jnp.int32))


def _task(source, model: nn.Module, init) -> Task:
    def logits(params, batch):
        return model.apply({"params": params}, batch["tokens"][:, :-1])

    def loss(config, params, batch, key):
        each = optax.softmax_cross_entropy_with_integer_labels(
            logits(params, batch), batch["tokens"][:, 1:]
        )
        return each.mean()

    def accuracy(config, params, batch, key):
        return (logits(params, batch).argmax(axis=-1) == batch["tokens"][:, 1:]).mean()

    return Task(source.data, init, source.batch, loss, accuracy=accuracy)
