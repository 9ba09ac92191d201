"""Keys, a ticket and the values derived from the type table that the protocol's tests share."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SPEC = Path(__file__).resolve().parents[2] / "protocol" / "spec"


@pytest.fixture(scope="session")
def make_vectors() -> ModuleType:
    """The generator of vectors/messages.json, which is a program, not part of a package."""
    spec = importlib.util.spec_from_file_location("make_vectors", SPEC / "make_vectors.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_vectors"] = module
    spec.loader.exec_module(module)
    return module
