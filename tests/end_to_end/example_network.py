"""The network that the examples of docs/examples ask: a coordinator, nodes with real models and a
gateway, in processes of their own."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from queue import SimpleQueue

import trio

from assay_node.models.card import build_card
from assay_node.models.minilm import fetch_minilm
from assay_protocol.cards import encode_card
from assay_simnet.drivers.real import real_network
from assay_simnet.drivers.real_model import prepare
from end_to_end.gateway_process import start_gateway
from end_to_end.scripted_network import FAUCET, POLICY

START_SECONDS_MAX = 600.0  # the first time, models are fetched and roads of the engine tried out
EMBEDDING_MODEL = "all-minilm-l6-v2"


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
        url = told.get(timeout=START_SECONDS_MAX)
        if isinstance(url, BaseException):
            raise url
        yield url
    finally:
        over.set()
        thread.join()


@asynccontextmanager
async def _network(folder: Path) -> AsyncIterator[str]:
    catalogue = folder / "catalogue"
    catalogue.mkdir()
    chat = prepare(catalogue, price_in=100, price_out=400)
    texts = fetch_minilm()
    card = catalogue / f"{EMBEDDING_MODEL}.card"
    card.write_bytes(encode_card(build_card(texts, name=EMBEDDING_MODEL, price_in=20, price_out=0)))
    async with real_network(folder) as network:
        await network.start_coordinator(POLICY, catalogue, FAUCET)
        await network.start_node("chat", chat.card_file, chat.file)
        await network.start_node("texts", card, texts)
        await network.wait_present(["chat", "texts"], START_SECONDS_MAX)
        yield await start_gateway(network)
