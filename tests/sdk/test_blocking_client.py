"""The blocking client, in threads and on loopback, with real sockets."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from assay import Client, Delta, verify_answer
from assay_protocol.errors import AssayError
from assay_protocol.messages import SubmitReceipt
from sdk.client_network import FakeNetwork, running
from sdk.client_world import CLIENT, FakeCoordinator, node_key


@contextmanager
def serving(fake: FakeNetwork) -> Iterator[FakeNetwork]:
    """The fake network in a thread."""
    fake.coordinator.nodes = 2
    ready, stop = threading.Event(), trio.Event()
    tokens: list[trio.lowlevel.TrioToken] = []

    async def main() -> None:
        async with running(fake, None, [node_key(0), node_key(1)]):
            tokens.append(trio.lowlevel.current_trio_token())
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    assert ready.wait(10)
    try:
        yield fake
    finally:
        tokens[0].run_sync_soon(stop.set)
        thread.join(10)


def test_the_blocking_client_answers_streams_and_cancels() -> None:
    fake = FakeNetwork(lose_after={0: 9}, pause=0.001, coordinator=FakeCoordinator())
    with serving(fake), Client(fake.address, seed=CLIENT.seed) as client:
        assert [one.name for one in client.models()] == ["toy"]
        assert client.account().available == 7
        whole = client.complete((11, 12), max_tokens=30)
        assert (len(whole.tokens), len(whole.nodes)) == (30, 2)
        assert verify_answer(whole.receipts).ok
        with client.stream_complete((11, 12), max_tokens=30, nodes=[node_key(1).public_key]) as s:
            text = "".join(event.text for event in s if isinstance(event, Delta))
        assert text == s.result.text
        with client.stream_complete((11,), max_tokens=900, nodes=[node_key(1).public_key]) as s:
            next(iter(s))
        assert s.result.finish_reason == "cancelled"
        with pytest.raises(AssayError, match="model_unknown"):
            client.complete((11,), model="other")
    handed_in = [one for one in fake.coordinator.handed_in if isinstance(one, SubmitReceipt)]
    assert len(handed_in) == 3
    with pytest.raises(AssayError, match="closed"):
        client.models()


def test_an_interrupt_cancels_the_job_and_leaves_the_client_usable() -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    fake = FakeNetwork(pause=0.01, coordinator=FakeCoordinator())
    with serving(fake), Client(fake.address, seed=CLIENT.seed) as client:
        client.models()
        before = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.15)
        try:
            with pytest.raises(KeyboardInterrupt):
                client.complete((11,), max_tokens=2_000)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert len(client.complete((11,), max_tokens=3).tokens) == 3
    assert [type(one) for one in fake.coordinator.handed_in] == [SubmitReceipt, SubmitReceipt]


def test_what_is_wrong_at_the_start_is_raised_here() -> None:
    with pytest.raises(AssayError, match="config_invalid"):
        Client("/ip4/127.0.0.1/tcp/1")


def test_importing_the_sdk_imports_no_extra() -> None:
    code = (
        "import sys, assay, assay.cli, assay.verify, assay.http;"
        "assert assay.GatewayClient and assay.read_records;"
        "sys.exit(any(name in sys.modules for name in ('trio', 'libp2p', 'numpy', 'jinja2')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=30).returncode == 0
