"""Multilayer perceptrons on images: the family that every learned optimizer is trained on first.

Members as google/learned_optimization has them: widths, norms, activations, dropout, squared error.
"""

from metaopt import Task
from metaopt.tasks.fresh import fresh_parameters
from metaopt.tasks.layers import ACTIVATIONS, NORMS, DenseNet
from metaopt.tasks.pixels import pixels
from metaopt.tasks.supervised import classifier, one_of, positive, positive_all


def image_mlp(
    *,
    dataset: str = "digits",
    side: int = 8,
    grey: bool = False,
    hidden: tuple[int, ...] = (32,),
    activation: str = "relu",
    norm: str | None = None,
    dropout: float = 0.0,
    objective: str = "cross_entropy",
    init_scale: float = 1.0,
    batch_size: int = 128,
) -> Task:
    """An MLP that classifies images, of any width, depth, norm, activation and dropout.

    Pixels are between 0 and 1. Kernels start as Flax has them (LeCun), biases at 0. Splits and data
    sets: `metaopt.tasks.image_sets.images`, and `metaopt.tasks.datasets.digits`.

    Args:
      dataset: ``"digits"``, which is embedded, ``"fashion_mnist"``, ``"mnist"``, ``"cifar10"``, ...
      side: height and width of the images.
      grey: the mean of the colours in place of the colours.
      hidden: widths of the hidden layers.
      activation: ``"relu"``, ``"gelu"``, ``"silu"`` or ``"tanh"``.
      norm: ``"layer"``, ``"group"``, ``"batch"`` (by the statistics of the batch at hand) or
        ``None``.
      dropout: the fraction of hidden units that is left out, in evaluations as well.
      objective: ``"cross_entropy"``, in nats, or ``"mse"``, summed over classes.
      init_scale: what the initial kernels are multiplied by.
      batch_size: images a batch.

    Raises:
      ValueError: for a value out of its range.

    Examples:
      >>> import jax
      >>> params = image_mlp(hidden=(8,), norm="layer").init((), jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(params))
      626
    """
    hidden = tuple(hidden)
    positive_all(hidden=hidden)
    positive(batch_size=batch_size)
    one_of(ACTIVATIONS, activation=activation)
    one_of(NORMS, norm=norm)
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be from 0 to below 1, got {dropout!r}.")
    if not init_scale > 0:
        raise ValueError(f"init_scale must be above 0, got {init_scale!r}.")
    source = pixels(dataset, side, grey)
    model = DenseNet((*hidden, source.classes), activation, norm, dropout)
    height, width, channels = source.shape
    init = fresh_parameters(model, height * width * channels, scale=init_scale)

    def predict(params, batch, key):
        x = source.of(batch)
        rngs = {"dropout": key} if dropout else {}
        return model.apply({"params": params}, x.reshape(len(x), -1), rngs=rngs)

    return classifier(
        source.data, init, predict,
        classes=source.classes, batch_size=batch_size, objective=objective,
    )  # fmt: skip
