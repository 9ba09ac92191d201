"""Runs functions one after another and tells, a JSON line each, what became of them.

Imported by the scripts of clients, in the environments of those clients: no package of ours here.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

Kind = TypeVar("Kind", bound=Exception)


class Skipped(Exception):
    """The subject has not what the check asks for."""


def run(*checks: Callable[[], None]) -> None:
    """Every check, whatever became of those before; the process ends with 0."""
    for check in checks:
        status, why = "passed", ""
        try:
            check()
        except Skipped as reason:
            status, why = "skipped", str(reason)
        except Exception as error:  # any failure of a client is a result
            status, why = "failed", f"{type(error).__name__}: {error}"
        told = {"test": check.__name__, "status": status, "why": why[:300]}
        print(json.dumps(told), flush=True)
    sys.exit(0)


def refused(kind: type[Kind], work: Callable[[], Any]) -> Kind:
    """What `work` raises; AssertionError if it does not."""
    try:
        work()
    except kind as error:
        return error
    raise AssertionError("it was answered")


def embedding_model() -> str:
    """The name of the subject's; Skipped if it has none."""
    name = os.environ["SUBJECT_EMBEDDING_MODEL"]
    if not name:
        raise Skipped("the subject serves no model of embeddings")
    return name


def reasoning_model() -> str:
    """A name of the subject's under which it reasons; Skipped if it has none."""
    name = os.environ["SUBJECT_REASONING_MODEL"]
    if not name:
        raise Skipped("the subject serves no model that reasons")
    return name


def equal(found: object, wanted: object) -> None:
    """As `assert`, and says what was found."""
    assert found == wanted, f"{found!r}, not {wanted!r}"
