"""The network that the examples of docs/examples ask: a coordinator, nodes with real models and a
gateway, in processes of their own."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from queue import SimpleQueue

import trio

from assay_simnet.drivers.real import real_network
from assay_simnet.drivers.real_model import prepare
from end_to_end.gateway_process import start_gateway
from end_to_end.scripted_network import FAUCET, POLICY

_PRICES = {"price_in": 100, "price_out": 400}  # micro-credits for 1000 tokens


@contextmanager
def example_network(folder: Path) -> Iterator[str]:
    """The URL of a gateway, served from a thread until the scope is left."""
    told: SimpleQueue[str | BaseException] = SimpleQueue()
    over = threading.Event()

    async def serve() -> None:
        async with _network(folder) as url:
            told.put(url)
            await trio.to_thread.run_sync(over.wait)

    def run() -> None:
        try:
            trio.run(serve)
        except BaseException as error:
            told.put(error)

    thread = threading.Thread(target=run, name="examples' network")
    thread.start()
    try:
        url = told.get()
        if isinstance(url, BaseException):
            raise url
        yield url
    finally:
        over.set()
        thread.join()


@asynccontextmanager
async def _network(folder: Path) -> AsyncIterator[str]:
    chat = prepare(folder, **_PRICES)
    async with real_network(folder) as network:
        await network.start_coordinator(POLICY, chat.card_file, FAUCET)
        await network.start_node("chat", chat.card_file, chat.file)
        await network.wait_present(["chat"])
        yield await start_gateway(network)
