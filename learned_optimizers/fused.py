"""A per-parameter rule as one kernel (Pallas, Triton on a GPU): features, network and state.

    groups, kept = block(inputs)                        features and accumulators
    x            = sum_i groups_i K_i + sum_j added_j   first layer
    x            = relu(x) K_l + b_l                    further layers
    step         = write(x[0], x[1], ...)

A program works on `BLOCK` elements: it reads their inputs once, keeps every activation on the chip,
and writes the step and the new accumulators once. Under `vmap` the particles, each with its own
weights, become an axis of the grid.

Normalisers scale the rows of the first kernel and what all elements share becomes part of the bias,
outside and at the size of the weights, so the kernel itself knows nothing of either. Features that
vary along some axes only are multiplied outside at their own size; ``added`` broadcasts the result.

JAX 0.12 still has Pallas' Triton backend, and says that a later one will not.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from metaopt.learned_optimizers import backend

BLOCK = 128
"""Elements a program works on: with 32 hidden units, 32 numbers a thread and activation."""

NARROWEST = 16
"""Least width of a matrix product that Triton takes; all widths are powers of two."""

# Three products in TF32 for one in float32: as exact but for the last bits, and on tensor cores.
# By an H100's peak rates, float32 proper would take longer for 32 hidden units than their bytes do.
PRECISION = jax.lax.DotAlgorithmPreset.TF32_TF32_F32_X3

Layer = tuple[jax.Array, jax.Array]
Blocks = tuple[jax.Array, ...]


def fused_rule(
    block: Callable[..., tuple[Blocks, Blocks]],
    write: Callable[..., jax.Array],
    *,
    shape: tuple[int, ...],
    inputs: Sequence[jax.Array],
    kernels: Sequence[jax.Array],
    added: Sequence[jax.Array],
    layers: Sequence[Layer],
    kept: Sequence[int],
    interpret: bool | None = None,
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """The step and the new accumulators of one tensor.

    Args:
      block: of some of the ``inputs``, in order, each ``[B, width]`` or, where it is the same for
        every element, ``[1, width]``: ``(groups, kept)``, each ``[B, width]``. Widths above 1 are
        padded with zeros to a power of two; what is made of the padding is ignored. Element by
        element, with operations that Triton has, and without arrays of its own.
      write: of the last layer's columns, each ``[B, 1]``: the step ``[B, 1]``.
      shape: the tensor's.
      inputs: ``[*lead, F]`` where ``lead`` broadcasts to the shape, of as many axes; float32.
      kernels: ``[F_i, H]`` for each group, rows scaled by its normaliser.
      added: ``[*lead, H]``, bias and ready products of features, at their own size.
      layers: ``(kernel, bias)`` after the first; the last one as wide as ``write`` takes columns.
      kept: how many numbers an element each of ``block``'s ``kept`` has.
      interpret: run Pallas' interpreter, which is slow and needs no GPU; without one if not
        given.

    Returns:
      The step ``[*shape]`` and, of each kept, ``[*shape, F]``; float32.

    Examples:
      >>> one, eye = jnp.ones((3, 1)), jnp.eye(2)
      >>> double = lambda x: ((x,), (2 * x,))
      >>> step, (doubled,) = fused_rule(double, lambda a, b: a + b, shape=(3,), inputs=[one],
      ...     kernels=[jnp.ones((1, 2))], added=[jnp.ones((1, 2))], layers=[(eye, jnp.ones(2))],
      ...     kept=[1], interpret=True)
      >>> step.tolist(), doubled.shape
      ([6.0, 6.0, 6.0], (3, 1))
    """
    if interpret is None:
        interpret = not backend.on_gpu()
    size = math.prod(shape)
    widths = [_padded(kernels[0].shape[1]), *(_padded(k.shape[1]) for k, _ in layers[:-1])]
    outputs = layers[-1][0].shape[1]
    rows = [x.reshape(-1, x.shape[-1]) for x in (*inputs, *added)]
    places = [_place(x.shape[:-1], shape) for x in (*inputs, *added)]
    # Kernels and biases as whole blocks, zeros where they are padded: a ReLU keeps zeros.
    firsts = [_pad(k, (_block_width(k.shape[0]), widths[0])) for k in kernels]
    middle = [
        (_pad(kernel, (n, m)), _pad(bias[None], (1, m)))
        for (kernel, bias), n, m in zip(layers[:-1], widths, widths[1:], strict=False)
    ]
    last = _pad(layers[-1][0].T, (outputs, widths[-1])), layers[-1][1][None]
    operands, structure = jax.tree.flatten((rows, firsts, middle, last))

    def kernel(*refs):
        results = refs[len(operands) :]
        rows, firsts, middle, (last_kernel, last_bias) = jax.tree.unflatten(
            structure, refs[: len(operands)]
        )
        index = pl.program_id(0) * BLOCK + jnp.arange(BLOCK, dtype=jnp.int32)
        tiles = [_load(ref, place, index, size) for ref, place in zip(rows, places, strict=True)]
        groups, new = block(*tiles[: len(inputs)])
        x = sum(tiles[len(inputs) :])
        for group, first, true in zip(groups, firsts, kernels, strict=True):
            x = x + _product(group, first[...], true.shape[0], interpret)
        for weights, bias in middle:
            x = _dot(jnp.maximum(x, 0.0), weights[...], interpret) + bias[...]
        x = jnp.maximum(x, 0.0)
        columns = [
            jnp.sum(x * last_kernel[pl.ds(i, 1), :], axis=1, keepdims=True) + last_bias[0, i]
            for i in range(outputs)
        ]
        for ref, value in zip(results, (write(*columns), *new), strict=True):
            _store(ref, value, index, size)

    step, *new = pl.pallas_call(
        kernel,
        out_shape=[jax.ShapeDtypeStruct((size, n), jnp.float32) for n in (1, *kept)],
        grid=(pl.cdiv(size, BLOCK),),
        interpret=interpret,
        compiler_params=triton.CompilerParams(num_warps=4, num_stages=1),
        name="fused_rule",
    )(*operands)
    return step.reshape(shape), tuple(x.reshape(*shape, x.shape[-1]) for x in new)


def _place(lead: tuple[int, ...], shape: tuple[int, ...]) -> list[tuple[int, int, int]] | None:
    """How an element's number gives its row in an input: the sum of ``number // a % b * c``.

    None where they are the same.
    """
    if lead == shape:
        return None
    after = lambda sizes, axis: math.prod(sizes[axis + 1 :])
    return [
        (after(shape, axis), n, after(lead, axis)) for axis, n in enumerate(shape) if lead[axis] > 1
    ]


def _load(ref, place, index, size):
    features = ref.shape[1]
    if place == []:
        row, known = jnp.zeros(1, jnp.int32), True
    else:
        row = index if place is None else _rows(place, index)
        known = index < size
    at, mask = _tile(ref, row, _block_width(features), known)
    return triton.load(at, mask=mask, other=0.0)


def _store(ref, value, index, size):
    at, mask = _tile(ref, index, value.shape[1], index < size)
    triton.store(at, value, mask=mask)


def _rows(place, index):
    return sum(jax.lax.rem(jax.lax.div(index, a), b) * c for a, b, c in place)


def _tile(ref, row, width, known):
    """Rows of a reference, as wide as is asked for, and where there is something."""
    column = jnp.arange(width, dtype=jnp.int32)[None, :]
    shape = (len(row), width)
    at = ref.at[jnp.broadcast_to(row[:, None], shape), jnp.broadcast_to(column, shape)]
    known = jnp.broadcast_to(known, row.shape)[:, None]
    return at, known & (column < ref.shape[1])


def _product(group, weights, features, interpret):
    if group.shape[1] == 1:
        return group * weights
    used = jnp.arange(group.shape[1], dtype=jnp.int32)[None, :] < features
    return _dot(jnp.where(used, group, 0.0), weights, interpret)


def _dot(x, weights, interpret):
    precision = jax.lax.Precision.HIGHEST if interpret else PRECISION
    return jnp.dot(x, weights, precision=precision, preferred_element_type=jnp.float32)


def _padded(width: int) -> int:
    return max(NARROWEST, pl.next_power_of_2(width))


def _block_width(features: int) -> int:
    return 1 if features == 1 else _padded(features)


def _pad(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jnp.pad(x, [(0, n - m) for n, m in zip(shape, x.shape, strict=True)])
