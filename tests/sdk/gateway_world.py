"""A gateway over the SDK's fake network, in memory and in virtual time; called over ASGI.

The model is the fake one (tokens are a hash of what came before); its card gives it a tokenizer, a
chat template and text. Nothing between the HTTP request and the node's stream is replaced.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import trio

from asgi_caller import Answer, Caller
from assay import AsyncClient
from assay.gateway.admission import Admission
from assay.gateway.api_keys import ApiKeys
from assay.gateway.app import gateway_app, job_limits
from assay.gateway.router import Router
from assay.gateway.service import Service
from assay.gateway.settings import Settings
from assay.gateway.spending import Spending
from assay.gateway.usage import Usage
from assay.routing.core.plans import Routes
from assay_network.memory import MemoryNetwork
from assay_protocol.cards import ModelCard, card_digest, encode_card
from sdk.client_network import CARD, FakeNetwork, running
from sdk.client_world import CLIENT, END, node_key

SECRET = "sk-upstream-secret"
NODES = [node_key(0), node_key(1)]
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def chat_card(**changes: Any) -> ModelCard:
    """The fake model's: 256 bytes, then words; token END ends an answer and says nothing."""
    n_vocab = CARD.n_vocab
    pieces = [bytes([i]) if i < 256 else f" w{i}".encode() for i in range(n_vocab)]
    pieces[END] = b""
    fields: dict[str, Any] = {
        "tokenizer_model": "gpt2",
        "tokenizer_pre": "gpt-2",
        "pieces": tuple(pieces),
        "chat_template": TEMPLATE,
        "license": "apache-2.0",
    }
    return replace(CARD, **(fields | changes))


@dataclass
class World:
    """The gateway under test, and the network it asks."""

    service: Service
    network: FakeNetwork
    http: Caller

    async def post(self, path: str, body: Any, **more: Any) -> Answer:
        return await self.http.post(path, json=body, **more)

    async def events(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        """The data of a stream's events, in order; [DONE] is left out."""
        answer = await self.post(path, {**body, "stream": True})
        assert answer.status_code == 200, answer.text
        lines = [line[6:] for line in answer.text.split("\n") if line.startswith("data: ")]
        return [json.loads(line) for line in lines if line != "[DONE]"]


@asynccontextmanager
async def gateway(
    folder: Path,
    fake: FakeNetwork | None = None,
    card: ModelCard | None = None,
    routes: Routes = Routes(),
    **settings: Any,
) -> AsyncIterator[World]:
    """A running gateway; `settings` and `routes` are the owner's. UPSTREAM_KEY opens upstreams."""
    fake = fake or FakeNetwork(end_at=12)
    fake.card = encode_card(card or chat_card())
    fake.card_name = card_digest(fake.card)
    fake.coordinator.nodes = len(NODES)
    memory = MemoryNetwork(latency=lambda a, b: 0.002)
    async with running(fake, memory, NODES):
        given = Settings(coordinator=fake.address, data_dir=str(folder), **settings)
        keys = ApiKeys(Path(given.keys), routes.upstreams) if given.keys else None
        spending = Spending(folder / "gateway.sqlite")
        usage = Usage(folder / "usage")
        async with (
            AsyncClient.connect(
                fake.address,
                seed=CLIENT.seed,
                transports=[memory.transport(CLIENT.public_key)],
                limits=job_limits(given),
            ) as client,
            Router.opened(routes, {"UPSTREAM_KEY": SECRET}, usage, spending) as router,
            trio.open_nursery() as tasks,
        ):
            # The tokenizer is made in a thread, which a clock that jumps does not wait for.
            await (await client.model()).tokens_of_text("x")
            admission = Admission(keys, spending, given.requests)
            service = Service(client, given, admission, tasks, router)
            app = gateway_app(service)
            yield World(service, fake, Caller(app))
            await usage.flush()
            tasks.cancel_scope.cancel()
