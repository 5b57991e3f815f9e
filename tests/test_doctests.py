"""Every example in a docstring runs, of modules under the names that users import them by."""

import doctest
import importlib

import pytest
from test_layout import MODULES

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", sorted(MODULES))
def test_examples(name):
    if name == "metaopt.__main__":  # which runs when it is imported by another name only
        return
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert not found.failed
