"""The gateway's pages and the proofs it passes on to them."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from asgi_caller import Answer
from assay.gateway.api_keys import add_key
from assay.gateway.credit_api import BUNDLE_BYTES_MAX
from assay.gateway.settings import Settings
from assay_contracts.credit.bundle import CreditBundle
from assay_contracts.local.chain import LocalChain
from assay_contracts.rpc.server import rpc_app, serve_rpc
from assay_protocol.errors import AssayError
from contracts.bundle_cases import Posted, post_two_epochs
from sdk.client_network import FakeNetwork
from sdk.gateway_world import World, gateway

ASK = {"model": "toy", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20}
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def posted(tmp_path_factory: pytest.TempPathFactory) -> Posted:
    return post_two_epochs(tmp_path_factory.mktemp("credit") / "chain.sqlite")


async def credit(world: World, **more: Any) -> Answer:
    answer = await world.post(CHAT, ASK, **more)
    (receipt,) = answer.json()["assay"]["receipts"]
    return await world.http.get(f"/v1/receipts/{receipt}/credit", **more)


@pytest.mark.parametrize("path", ["/", "/receipt", "/web/style.css", "/web/verify/receipt.js"])
async def test_pages_need_no_key_and_show_nothing_of_the_network(
    autojump_clock: object, tmp_path: Path, path: str
) -> None:
    add_key(keys := tmp_path / "keys", "alice")
    async with gateway(tmp_path, keys=str(keys)) as world:
        answer = await world.http.get(path, headers={"host": "elsewhere.example"})
        assert answer.status_code == 200
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert (await world.http.get("/v1/models")).status_code == 401


async def test_only_this_machine_s_names_reach_the_api(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with gateway(tmp_path) as world:
        elsewhere = {"host": "elsewhere.example"}
        assert (await world.http.get("/", headers=elsewhere)).status_code == 200
        assert (await world.http.get("/v1/models", headers=elsewhere)).status_code == 421
        assert (await world.http.post("/", json={})).status_code == 405


async def test_a_node_without_credit_on_chain_is_no_error(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with gateway(tmp_path) as world:
        answer = await credit(world)
        assert answer.status_code == 200
        assert answer.json()["bundle"] is None


async def test_a_bundle_is_passed_on_as_it_came(tmp_path: Path, posted: Posted) -> None:
    fake = FakeNetwork(end_at=12, credit=posted.bundle.encode())
    async with gateway(tmp_path, fake) as world:
        told = (await credit(world)).json()
    assert CreditBundle.decode(base64.b64decode(told["bundle"])) == posted.bundle
    assert (told["epoch"], told["posted"]) == (2, None)


async def test_the_chain_s_word_is_read_where_the_owner_named_one(
    tmp_path: Path, posted: Posted
) -> None:
    fake = FakeNetwork(end_at=12, credit=posted.bundle.encode())
    chain = LocalChain.open(posted.file, read_only=True)
    async with trio.open_nursery() as nursery:
        (url,) = await nursery.start(serve_rpc, rpc_app(chain), "127.0.0.1", 0)
        async with gateway(tmp_path, fake, chain=url) as world:
            told = (await credit(world)).json()["posted"]
            fake.credit = replace(posted.bundle, ledger=b"\5" * 20).encode()
            other = (await credit(world)).json()["posted"]
        nursery.cancel_scope.cancel()
    chain.close()
    assert (told["is_ledger"], told["source"], told["final"]) == (True, "127.0.0.1", False)
    assert (told["epoch"]["leaves"], told["before"]["leaves"]) == (6, 5)
    assert int(told["epoch"]["total"]) > int(told["before"]["total"]) > 0
    assert (other["is_ledger"], other["epoch"]) == (False, None)


async def test_a_chain_that_is_none_is_told(tmp_path: Path, posted: Posted) -> None:
    fake = FakeNetwork(end_at=12, credit=posted.bundle.encode())
    async with gateway(tmp_path, fake, chain="http://127.0.0.1:9/") as world:
        answer = await credit(world)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "peer_gone")


async def test_a_proof_is_bounded_and_only_of_one_s_own_receipts(
    autojump_clock: object, tmp_path: Path
) -> None:
    secrets = [add_key(tmp_path / "keys", name) for name in ("alice", "bob")]
    alice, bob = ({"authorization": f"Bearer {secret}"} for secret in secrets)
    fake = FakeNetwork(end_at=12, credit=bytes(BUNDLE_BYTES_MAX + 1))
    async with gateway(tmp_path, fake, keys=str(tmp_path / "keys")) as world:
        large = await credit(world, headers=alice)
        assert (large.status_code, large.json()["error"]["code"]) == (502, "proof_too_large")
        answer = await world.post(CHAT, ASK, headers=alice)
        (receipt,) = answer.json()["assay"]["receipts"]
        path = f"/v1/receipts/{receipt}/credit"
        assert (await world.http.get(path, headers=bob)).status_code == 404


async def test_a_bundle_that_is_none_is_the_coordinator_s_fault(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with gateway(tmp_path, FakeNetwork(end_at=12, credit=b"\x90")) as world:
        answer = await credit(world)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "malformed")


@pytest.mark.parametrize("chain", ["chain.sqlite", "ftp://node", "http://", "http://node:x"])
def test_a_chain_that_is_no_url_is_refused_at_the_start(chain: str) -> None:
    with pytest.raises(AssayError) as error:
        Settings(coordinator="/ip4/127.0.0.1/tcp/1/p2p/x", chain=chain)
    assert error.value.code == "config_invalid"
