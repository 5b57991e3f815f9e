"""Transformers and mixers as Flax modules: what language models and images of patches share."""

import flax.linen as nn
import jax


class Attention(nn.Module):
    """Attention of several heads, ``[n, length, width]`` to the same.

    Attributes:
      heads: of width / heads channels each.
      causal: whether a position sees itself and those before it only.
    """

    heads: int
    causal: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        n, length, width = x.shape
        parts = nn.Dense(3 * width)(x).reshape(n, length, 3, self.heads, width // self.heads)
        query, key, value = (parts[:, :, i] for i in range(3))
        mixed = jax.nn.dot_product_attention(query, key, value, is_causal=self.causal)
        return nn.Dense(width)(mixed.reshape(n, length, width))


class Feedforward(nn.Module):
    """Two dense layers with GELU between them, over the last axis."""

    hidden: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(x.shape[-1])(nn.gelu(nn.Dense(self.hidden)(x)))


class Transformer(nn.Module):
    """Blocks with the norm before each part, and one at the end: ``[n, length, width]``.

    Attributes:
      layers: blocks.
      heads: of each.
      hidden: width of the feedforward part.
      causal: see `Attention`.
    """

    layers: int
    heads: int
    hidden: int
    causal: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for _ in range(self.layers):
            x = x + Attention(self.heads, self.causal)(nn.LayerNorm()(x))
            x = x + Feedforward(self.hidden)(nn.LayerNorm()(x))
        return nn.LayerNorm()(x)


class Mixer(nn.Module):
    """Blocks that mix positions, then channels, each by two dense layers: ``[n, length, width]``.

    Attributes:
      layers: blocks.
      token_hidden, channel_hidden: widths within the two parts.
    """

    layers: int
    token_hidden: int
    channel_hidden: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for _ in range(self.layers):
            mixed = Feedforward(self.token_hidden)(nn.LayerNorm()(x).swapaxes(1, 2))
            x = x + mixed.swapaxes(1, 2)
            x = x + Feedforward(self.channel_hidden)(nn.LayerNorm()(x))
        return nn.LayerNorm()(x)


class Positions(nn.Module):
    """Adds a learned vector to every position."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.param("embedding", nn.initializers.normal(0.02), x.shape[1:])
