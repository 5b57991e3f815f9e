"""Shared fixtures; compile time is most of this suite, so a program is compiled once."""

import os
import signal
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent
"""Of the checkout."""

# Before JAX starts: simulated devices can deadlock with few threads; and programs that run for
# milliseconds need not be good ones (a quarter of the time to compile, measured).
os.environ.setdefault("NPROC", "16")
FAST_TO_COMPILE = "--xla_backend_optimization_level=0"
if version("jaxlib").startswith("0.10."):  # later ones do not know the flag, and end Python
    FAST_TO_COMPILE += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", FAST_TO_COMPILE)

# Tests send these; whoever runs the suite in the background or under nohup ignores them.
for number, handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

# One for all workers and the processes that they start; whoever is here first removes it.
if "METAOPT_TESTS" not in os.environ:
    FOLDER = tempfile.TemporaryDirectory(prefix="metaopt-tests-")
    os.environ["METAOPT_TESTS"] = FOLDER.name
CACHE = os.environ["METAOPT_TESTS"]
os.environ["TFDS_DATA_DIR"] = f"{CACHE}/data-{os.environ.get('PYTEST_XDIST_WORKER', '')}"

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_compilation_cache_dir", CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@pytest.fixture(scope="session")
def cli():
    """Runs the command line in a process of its own: ``cli("train", "tiny", cwd=...)``."""
    env = os.environ | {"JAX_COMPILATION_CACHE_DIR": CACHE, "COLUMNS": "100"}

    def run(*args, start=False, **options):
        command = [sys.executable, "-m", "metaopt", *map(str, args)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        options = {"env": env, "text": True} | pipes | options
        if start:
            return subprocess.Popen(command, **options)
        return subprocess.run(command, timeout=300, check=False, **options)

    return run


@pytest.fixture(scope="session")
def golden():
    """The recorded traces that this checkout carries."""
    return Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def no_downloads(monkeypatch):
    """What is not on this machine is left out, not fetched."""

    def refused(url, sha256, to):
        raise OSError("the tests download nothing")

    monkeypatch.setattr("metaopt.tasks.image_sets.download", refused)
