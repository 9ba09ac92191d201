"""Who gets in and how what goes wrong is told: keys, bounds, budgets, bodies, names."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import trio

from asgi_caller import Answer
from assay.gateway.api_keys import add_key, revoke_key
from assay.records import ReceiptRecord
from assay_protocol.errors import CODES, AssayError
from assay_protocol.messages import SubmitJob, Ticket
from assay_protocol.signing import peek
from sdk.client_network import FakeNetwork
from sdk.gateway_world import World, gateway

ASK = {"model": "toy", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20}
CHAT = "/v1/chat/completions"


def code_of(answer: Answer) -> str:
    code: str = answer.json()["error"]["code"]
    return code


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


async def test_every_answer_has_an_id(autojump_clock: object, tmp_path: Path) -> None:
    async with gateway(tmp_path) as world:
        given = await world.http.get("/v1/models", headers={"x-request-id": "mine-1"})
        assert given.headers["x-request-id"] == "mine-1"
        for strange in ("a b", "x" * 65):
            made = await world.http.get("/v1/models", headers={"x-request-id": strange})
            assert made.headers["x-request-id"].startswith("req_")
        missing = await world.http.get("/v1/nothing")
        assert (missing.status_code, code_of(missing)) == (404, "not_found")
        assert missing.headers["x-request-id"].startswith("req_")
        wrong = await world.http.get(CHAT)
        assert (wrong.status_code, code_of(wrong)) == (405, "method_not_allowed")
        assert wrong.headers["allow"] == "POST"


async def test_bodies_are_bounded_and_checked(autojump_clock: object, tmp_path: Path) -> None:
    json_kind = {"content-type": "application/json"}
    async with gateway(tmp_path, body_bytes=2_000) as world:
        for data, status, code in (
            (b"{", 400, "invalid_json"),
            (b"[1]", 400, "invalid_type"),
            (b'{"model": NaN}', 400, "invalid_json"),
            (b'{"model": "\\ud800"}', 400, "invalid_json"),
            (b'{"model": "\xff"}', 400, "invalid_json"),
            (b'{"a":' * 200 + b"1" + b"}" * 200, 400, "invalid_json"),
            (b"[" * 1_900, 400, "invalid_json"),
            (b" " * 2_001, 413, "request_too_large"),
            (b"1" * 1_999, 400, "invalid_type"),
        ):
            answer = await world.http.post(CHAT, content=data, headers=json_kind)
            assert (answer.status_code, code_of(answer)) == (status, code), data[:20]
        for kind in ("text/plain", ""):
            plain = await world.http.post(CHAT, content=b"{}", headers={"content-type": kind})
            assert (plain.status_code, code_of(plain)) == (415, "unsupported_media_type")


async def test_a_refused_requests_body_is_read_or_its_connection_closed(
    autojump_clock: object, tmp_path: Path
) -> None:
    """A client that sends its body late must find its connection as it thinks it is."""
    async with gateway(tmp_path, body_bytes=4 << 20) as world:
        read: list[int] = []

        async def body(count: int) -> AsyncIterator[bytes]:
            for number in range(count):
                await trio.sleep(0.01)
                read.append(number)
                yield bytes(100_000)

        for count, status, took in ((5, 404, 5), (50, 413, 50), (90, 413, 53)):
            read.clear()
            async with aclosing(body(count)) as content:
                answer = await world.http.post("/v1/nothing", content=content)
            assert answer.status_code == status
            assert (answer.headers.get("connection") == "close") == (took < count)
            assert len(read) == took


async def test_a_body_that_does_not_arrive(autojump_clock: object, tmp_path: Path) -> None:
    async with gateway(tmp_path, body_seconds=5) as world:

        async def slow() -> Any:
            while True:
                yield b" "
                await trio.sleep(1)

        answer = await world.http.post(
            CHAT, content=slow(), headers={"content-type": "application/json"}
        )
        assert (answer.status_code, code_of(answer)) == (408, "timeout")


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"mesages": []}, "unknown_parameter", "mesages"),
        ({"model": None}, "missing_required_parameter", "model"),
        ({"model": 1}, "invalid_type", "model"),
        ({"messages": None}, "missing_required_parameter", "messages"),
        ({"messages": []}, "invalid_value", "messages"),
        ({"messages": [{"role": "boss", "content": ""}]}, "invalid_value", "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "missing_required_parameter", "messages[0].content"),
        ({"temperature": 3}, "invalid_value", "temperature"),
        ({"temperature": "1"}, "invalid_type", "temperature"),
        ({"n": 0}, "invalid_value", "n"),
        ({"n": True}, "invalid_type", "n"),
        ({"max_tokens": 0}, "invalid_value", "max_tokens"),
        ({"stop": ["a"] * 5}, "invalid_value", "stop"),
        ({"stop": ""}, "invalid_value", "stop"),
        ({"logit_bias": {"x": 1}}, "invalid_value", "logit_bias"),
        ({"logit_bias": {"1": 200}}, "invalid_value", "logit_bias.1"),
        ({"top_logprobs": 2}, "invalid_value", "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "invalid_value", "stream_options"),
        ({"region": "EU"}, "invalid_value", "region"),
        ({"region": ["eu"] * 9}, "invalid_value", "region"),
        ({"node": "ab"}, "invalid_value", "node"),
        ({"verify": "twice"}, "invalid_value", "verify"),
        ({"license": "mit"}, "license_mismatch", "license"),
        ({"audio": {"voice": "x"}}, "unsupported_parameter", "audio"),
        ({"response_format": {"type": "xml"}}, "invalid_value", "response_format.type"),
        ({"tool_choice": "required"}, "invalid_value", "tool_choice"),
        ({"tools": [{"type": "web"}]}, "unsupported_parameter", "tools[0].type"),
    ],
)
async def test_what_is_wrong_is_named(
    autojump_clock: object, tmp_path: Path, change: dict[str, Any], code: str, param: str
) -> None:
    async with gateway(tmp_path) as world:
        answer = await world.post(CHAT, {**ASK, **change})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (400, code, param)
        assert error["type"] == "invalid_request_error"


async def test_a_misspelt_field_gets_the_nearest_name(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with gateway(tmp_path) as world:
        answer = await world.post(CHAT, {**ASK, "temprature": 1})
        assert "did you mean 'temperature'" in answer.json()["error"]["message"]


class Refusing(FakeNetwork):
    """A coordinator that gives no ticket, for a reason."""

    reason = AssayError("busy")

    def answer(self, peer: bytes, message: object) -> object:
        if isinstance(message, SubmitJob):
            raise self.reason
        return super().answer(peer, message)


@pytest.mark.parametrize(
    ("reason", "status", "code"),
    [
        ("insufficient_credit", 402, "insufficient_credit"),
        ("model_denied", 403, "model_denied"),
        ("prompt_refused", 400, "content_filter"),
        ("verify_refused", 400, "verify_refused"),
        ("no_capacity", 503, "no_capacity"),
        ("rate_limited", 429, "rate_limit_exceeded"),
        ("bad_signature", 502, "bad_signature"),
    ],
)
async def test_the_networks_refusals_have_a_status_each(
    autojump_clock: object, tmp_path: Path, reason: str, status: int, code: str
) -> None:
    fake = Refusing()
    fake.reason = AssayError(reason, retry_after_ms=1_500 if status in (429, 503) else None)
    async with gateway(tmp_path, fake) as world:
        for stream in (False, True):  # before its first token a stream has a status, too
            answer = await world.post(CHAT, {**ASK, "stream": stream})
            assert (answer.status_code, code_of(answer)) == (status, code)
            assert ("retry-after" in answer.headers) == (status in (429, 503))
        if status == 503:
            assert answer.headers["retry-after"] == "2"
        told = await world.post("/v1/messages", ASK)
        assert told.json()["type"] == "error"


async def test_no_code_of_the_network_is_without_a_status() -> None:
    from assay.gateway.refusal import refusal_of

    statuses = {code: refusal_of(AssayError(code)).status for code in CODES}
    assert all(400 <= status < 600 and status != 500 for status in statuses.values())


async def test_keys_and_their_bounds(autojump_clock: object, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    secret = add_key(keys, "alice", requests_per_minute=3)
    other = add_key(keys, "bob", at_once=1)
    assert secret not in keys.read_text()
    async with gateway(tmp_path, keys=str(keys)) as world:
        for headers in ({}, bearer("assay-wrong"), {"x-api-key": "no"}):
            answer = await world.http.get("/v1/models", headers=headers)
            assert (answer.status_code, code_of(answer)) == (401, "invalid_api_key")
        assert (await world.http.get("/healthz")).status_code == 200
        for left in ("2", "1", "0"):
            answer = await world.http.get("/v1/models", headers=bearer(secret))
            assert answer.headers["x-ratelimit-remaining-requests"] == left
        answer = await world.http.get("/v1/models", headers=bearer(secret))
        assert (answer.status_code, code_of(answer)) == (429, "rate_limit_exceeded")
        await trio.sleep(float(answer.headers["retry-after"]))
        assert (await world.http.get("/v1/models", headers=bearer(secret))).status_code == 200
        await at_once(world, bearer(other))
        revoke_key(keys, "bob")
        await trio.sleep(2)
        answer = await world.http.get("/v1/models", headers={"x-api-key": other})
        assert answer.status_code == 401


async def at_once(world: World, headers: dict[str, str]) -> None:
    statuses: list[int] = []

    async def ask() -> None:
        answer = await world.http.post(CHAT, json=ASK, headers=headers)
        statuses.append(answer.status_code)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        nursery.start_soon(ask)
    assert sorted(statuses) == [200, 429]


async def test_a_budget_is_kept_over_restarts(autojump_clock: object, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    secret = add_key(keys, "alice", budget=150)
    fake = FakeNetwork(end_at=12)
    async with gateway(tmp_path, fake, keys=str(keys)) as world:
        answer = await world.http.post(CHAT, json=ASK, headers=bearer(secret))
        spent = int(answer.headers["x-assay-credit"])
        assert 0 < spent < 150
        assert world.service.admission.running == 0
    async with gateway(tmp_path, FakeNetwork(end_at=12), keys=str(keys)) as world:
        several = {**ASK, "n": 4}
        answer = await world.http.post(CHAT, json=several, headers=bearer(secret))
        assert (answer.status_code, code_of(answer)) == (402, "insufficient_quota")
        assert f"has {150 - spent} micro-credits left" in answer.json()["error"]["message"]
        assert answer.headers["x-should-retry"] == "false"
        receipt = await world.http.get("/v1/receipts/00", headers=bearer(secret))
        assert receipt.status_code == 404


async def test_receipts_are_their_askers_own(autojump_clock: object, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    alice, bob = add_key(keys, "alice"), add_key(keys, "bob")
    async with gateway(tmp_path, keys=str(keys), receipts=1) as world:
        answer = await world.http.post(CHAT, json=ASK, headers=bearer(alice))
        path = f"/v1/receipts/{answer.headers['x-assay-receipt']}"
        assert (await world.http.get(path, headers=bearer(bob))).status_code == 404
        assert (await world.http.get(path, headers=bearer(alice))).status_code == 200
        await world.http.post(CHAT, json=ASK, headers=bearer(bob))
        assert (await world.http.get(path, headers=bearer(alice))).status_code == 404


async def test_who_knows_a_published_ticket_reads_no_prompt_of_it(
    autojump_clock: object, tmp_path: Path
) -> None:
    """Rounds and the coordinator's pages publish tickets; without keys all callers are one."""
    async with gateway(tmp_path) as world:
        answer = await world.http.post(CHAT, json=ASK)
        path = f"/v1/receipts/{answer.headers['x-assay-receipt']}"
        told = (await world.http.get(path)).json()
        record = ReceiptRecord.decode(base64.b64decode(told["record"]))
        ticket = peek(Ticket, record.ticket).ticket.hex()
        assert ticket in path
        for guess in (ticket, f"{ticket}-", f"{ticket}-{'0' * 24}", path[-24:]):
            assert (await world.http.get(f"/v1/receipts/{guess}")).status_code == 404
            assert (await world.http.get(f"/v1/receipts/{guess}/credit")).status_code == 404


async def test_more_than_the_gateway_may_answer_at_once(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with gateway(tmp_path, requests=1) as world:
        statuses: list[tuple[int, str | None]] = []

        async def ask() -> None:
            answer = await world.post(CHAT, ASK)
            statuses.append((answer.status_code, answer.headers.get("retry-after")))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
        assert sorted(statuses) == [(200, None), (503, "1")]


async def test_a_page_cannot_reach_a_gateway_without_keys(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with gateway(tmp_path) as world:
        for host, status in (
            ("localhost:8000", 200),
            ("[::1]:8000", 200),
            ("127.0.0.1", 200),
            ("evil.example:8000", 421),
            ("", 421),
        ):
            answer = await world.http.get("/v1/models", headers={"host": host})
            assert answer.status_code == status, host
        preflight = await world.http.request(
            "OPTIONS",
            CHAT,
            headers={"origin": "http://a.example", "access-control-request-method": "POST"},
        )
        assert "access-control-allow-origin" not in preflight.headers
    async with gateway(tmp_path, cors_origins=("http://a.example",)) as world:
        answer = await world.http.get("/v1/models", headers={"origin": "http://a.example"})
        assert answer.headers["access-control-allow-origin"] == "http://a.example"


async def test_ready_says_why_not(autojump_clock: object, tmp_path: Path) -> None:
    async with gateway(tmp_path) as world:
        assert (await world.http.get("/readyz")).json() == {"status": "ready"}
        world.service.draining = True
        answer = await world.http.get("/readyz")
        assert (answer.status_code, answer.json()["reason"]) == (503, "draining")


async def test_a_fault_of_ours_is_a_500_that_tells_nothing(
    autojump_clock: object, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway(tmp_path) as world:

        async def broken(*_: object) -> None:
            raise RuntimeError("the secret prompt")

        world.service.read_prompts = broken  # type: ignore[method-assign,assignment]  # a fault
        answer = await world.post(CHAT, ASK)
        assert (answer.status_code, code_of(answer)) == (500, "internal")
        assert "secret" not in answer.text + caplog.text
        assert "request_failed" in caplog.text
