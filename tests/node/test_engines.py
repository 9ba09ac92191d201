"""Engines open and close each on its own; whoever asks for one that is not open is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from assay_node.engine.interface import Engine
from assay_node.engine.scripted import Script, open_scripted_engine
from assay_node.engines import Opener, open_engines
from assay_protocol.errors import AssayError

A, B = b"a" * 32, b"b" * 32


def opener(model: bytes, faults: list[Exception] | None = None) -> Opener:
    """Opens as often as asked, unless the next fault says otherwise."""

    @asynccontextmanager
    async def opening() -> AsyncIterator[Engine]:
        if faults:
            raise faults.pop(0)
        async with open_scripted_engine(Script(model=model)) as engine:
            yield engine

    return opening


async def test_an_engine_is_closed_and_opened_again_and_the_other_is_not_touched() -> None:
    async with open_engines() as engines:
        first, other = await engines.add(opener(A)), await engines.add(opener(B))
        await engines.close(A)
        with pytest.raises(AssayError) as caught:
            engines.get(A)
        assert caught.value.code == "engine_failed"
        assert engines.get(B) is other
        await engines.open(A)
        assert engines.get(A) is not first
        assert engines.get(A).info.model == A


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (AssayError("model_corrupt"), "model_corrupt"),
        (FileNotFoundError(2, "No such file"), "model_missing"),
        (ModuleNotFoundError("llama_cpp"), "engine_missing"),
    ],
)
async def test_one_that_cannot_be_opened_says_why_and_may_be_tried_again(
    fault: Exception, code: str
) -> None:
    faults: list[Exception] = []
    async with open_engines() as engines:
        await engines.add(opener(A, faults))
        await engines.add(opener(B))
        await engines.close(A)
        faults.append(fault)
        with pytest.raises(AssayError) as caught:
            await engines.open(A)
        assert caught.value.code == code
        assert engines.get(B).info.model == B
        await engines.open(A)
        assert engines.get(A).info.model == A


async def test_a_missing_extra_and_a_refusal_reach_the_caller_as_they_are() -> None:
    for fault in (ModuleNotFoundError("llama_cpp"), AssayError("engine_missing")):
        with pytest.raises(type(fault)) as caught:
            async with open_engines() as engines:
                await engines.add(opener(A, [fault]))
        assert caught.value is fault


async def test_deaths_of_closed_engines_are_counted_on() -> None:
    async with open_engines() as engines:
        engine = await engines.add(opener(A))
        engine.die()  # type: ignore[attr-defined]  # a scripted one
        await engines.close(A)
        await engines.open(A)
        engines.get(A).die()  # type: ignore[attr-defined]
        assert engines.restarts == 2
        with trio.fail_after(20):
            await engines.close(A)
