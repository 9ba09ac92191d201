"""A chat in Chromium, answered by a real node through a real gateway, and checked in the page.

Where pictures are wanted the node serves SmolLM2; else the scripted model, which starts at once.
"""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from assay.records import ReceiptRecord, read_records, write_records
from assay.verify import verify
from assay_coordinator.operator import ask
from assay_network.keystore import load_key
from assay_protocol.messages import CloseEpoch, EpochClosed
from assay_protocol.signing import Identity
from assay_simnet.drivers.real import RealNetwork, real_network
from assay_simnet.drivers.real_model import prepare
from end_to_end.gateway_process import start_gateway
from end_to_end.pages import PICTURES, Visit, needs_browser, open_browser, visit
from end_to_end.places import write_card
from end_to_end.scripted_network import FAUCET, POLICY, start_paced

pytestmark = [pytest.mark.end_to_end, needs_browser]
PAID_AT_ONCE = POLICY + "holdback_jobs = 0\n"  # so that the epoch's credit has the job
QUESTION = "Why does a lighthouse flash?"
TOKENS = 48
PACE = 0.01  # seconds a token
LONG_TOKENS = 1_500
CHAT = "**/v1/chat/completions"
ANSWER_MS = 120_000
PAID_SECONDS = 60.0
POSTED_MS = 60_000


def error_of(code: str) -> dict[str, Any]:
    """A refusal's body, as the gateway sends it."""
    return {"json": {"error": {"message": "-", "type": "-", "param": None, "code": code}}}


async def test_a_chat_is_streamed_and_verified_in_the_page(tmp_path: Path) -> None:
    async with real_network(tmp_path) as network:
        await start_network(network)
        url = await start_gateway(network, "--chain", network.rpc)
        await trio.to_thread.run_sync(browse, network, url)


async def start_network(network: RealNetwork) -> None:
    """A coordinator and one node."""
    if PICTURES is None:
        await network.start_coordinator(PAID_AT_ONCE, write_card(network.folder), FAUCET)
        await start_paced(network, "node", PACE)
        return
    made = await trio.to_thread.run_sync(
        lambda: prepare(network.folder, price_in=100, price_out=400)
    )
    await network.start_coordinator(PAID_AT_ONCE, made.card_file, FAUCET)
    await network.start_node("node", made.card_file, made.file)
    await network.wait_present(["node"], 300)


def browse(network: RealNetwork, url: str) -> None:
    """All visits, with one browser."""
    coordinator = Identity(load_key(network.folder / "coordinator" / "coordinator.key")).public_key
    with open_browser() as browser:
        with visit(browser, url) as seen:
            seen.page.click("text=Keys")
            seen.page.fill("#coordinator", coordinator.hex())
            seen.page.click("text=Keys")
            chat_verified(seen, network)
            trio.from_thread.run(close_epoch, network)
            credit_verified(seen)
            file = saved(seen, network.folder)
            if PICTURES is None:  # a small model on a busy machine may take no long job, or end it
                stopped(seen)
        for look in ("dark", "phone"):
            with visit(browser, url, look) as seen:
                answered(seen)
                seen.page.click(".proof summary >> nth=0")
                seen.picture("chat")
                if look == "phone":
                    a_root_from_elsewhere(seen)
        with visit(browser, url) as seen:
            a_gateway_that_lies(seen)
        with visit(browser, url) as seen:
            reasoning_apart(seen)
        with visit(browser, url) as seen:
            refused(seen)
        receipts_checked(browser, url, file)


async def close_epoch(network: RealNetwork) -> None:
    """Once the job is paid: its round of the lottery is drawn a moment after it is booked."""
    with trio.fail_after(PAID_SECONDS):
        while (node := await network.node("node")) is None or not node.earned:
            await trio.sleep(0.2)
    await ask(network.operator_seed(), network.address, CloseEpoch(), EpochClosed)


def answered(seen: Visit) -> None:
    """Ask by keyboard, and wait for the verdict under the answer."""
    page = seen.page
    page.wait_for_selector("#model option", state="attached")
    page.fill("#length", str(TOKENS))
    page.fill("#question", QUESTION)
    page.press("#question", "Enter")
    page.wait_for_selector(".proof .badge.good, .proof .badge.bad", timeout=ANSWER_MS)


def chat_verified(seen: Visit, network: RealNetwork) -> None:
    answered(seen)
    page = seen.page
    seen.says("Receipt holds", ".proof .head .badge")
    seen.says("The receipt holds", "#status")
    seen.says(network.key_of("node").hex(), ".proof .facts")
    seen.picture("chat")
    for summary in page.query_selector_all(".proof summary"):
        summary.click()
    told = page.inner_text(".proof")
    for name in ("ticket signature", "receipt signature", "output", "the text", "your question"):
        assert outcome(seen, name) == "holds", told
    assert outcome(seen, "leaves root") == "not checked"


def outcome(seen: Visit, name: str, within: str = "main") -> str:
    """What stands beside a step."""
    step = f'{within} .steps li:has(strong:text-is("{name}")) .badge'
    found: str = seen.page.inner_text(step)
    return found


def credit_verified(seen: Visit) -> None:
    """The epoch is posted a moment after it closed."""
    page = seen.page
    page.click("text=Look for it in the node's credit")
    booked = '.steps li:has(strong:text-is("booked")) .badge.good'
    for _ in range(POSTED_MS // 500):
        page.wait_for_selector("button:text('Look again'):not([disabled])")
        if page.query_selector(booked):
            break
        page.wait_for_timeout(500)
        page.click("text=Look again")
    for name in ("booked", "account", "lines to leaf", "leaf to root", "pricing"):
        assert outcome(seen, name) == "holds", page.inner_text(".proof")
    assert "read by this gateway from 127.0.0.1" in page.inner_text(".proof")
    seen.picture("chat-credit", full_page=True)


def a_root_from_elsewhere(seen: Visit) -> None:
    """A gateway that reads no chain: the reader puts in what the ledger says."""
    roots: list[dict[str, str]] = []

    def unread(route: Any) -> None:
        answer = route.fetch()
        told = answer.json()
        roots.append(told["posted"]["epoch"])
        route.fulfill(response=answer, json={**told, "posted": None})

    page = seen.page
    page.route("**/v1/receipts/*/credit", unread)
    page.click("text=Its place in the epoch's credit")
    page.click("text=Look for it in the node's credit")
    page.wait_for_selector("#root")
    assert outcome(seen, "leaf to root") == "not checked"
    page.fill("#total", roots[0]["total"])
    for root, held in (("00" * 32, "does not hold"), (roots[0]["root"], "holds")):
        page.fill("#root", root)
        page.click("button:text-is('Compare')")
        page.wait_for_selector(f"form .steps .badge:text-is('{held}')")


def saved(seen: Visit, folder: Path) -> Path:
    """The receipt file, which the program finds as good as the page did."""
    with seen.page.expect_download() as download:
        seen.page.click("text=Save the receipt")
    file = folder / "saved.receipt"
    download.value.save_as(file)
    (record,) = read_records(file.read_bytes())
    assert verify(record).ok
    return file


def stopped(seen: Visit) -> None:
    """Of an answer so long that it is still being drawn when the browser gets around to it."""
    page = seen.page
    page.fill("#length", str(LONG_TOKENS))
    page.fill("#question", "And in fog?")
    page.press("#question", "Enter")
    page.wait_for_selector(".turn.drawing .words:not(:empty)", timeout=ANSWER_MS)
    page.wait_for_selector("#stop")
    page.keyboard.press("Escape")
    page.wait_for_selector(".proof .notice.warn:has-text('Stopped')")
    page.wait_for_selector("#send")


def a_gateway_that_lies(seen: Visit) -> None:
    """It takes three tokens off the answer that the node signed."""

    def shortened(route: Any) -> None:
        answer = route.fetch()
        told = answer.json()
        record = ReceiptRecord.decode(base64.b64decode(told["record"]))
        changed = write_records([replace(record, output=record.output[:-12])])[4:]
        told["record"] = base64.b64encode(changed).decode()
        route.fulfill(response=answer, json=told)

    seen.page.route("**/v1/receipts/*", shortened)
    answered(seen)
    seen.says("Receipt does not hold", ".proof .head .badge")
    seen.page.click(".proof summary >> nth=0")
    assert outcome(seen, "output") == "does not hold"
    assert outcome(seen, "receipt signature") == "holds"


def reasoning_apart(seen: Visit) -> None:
    """A model that reasons: here the first pieces of an answer are told as its reasoning. Pieces
    that are kept back are missed in what the tokens spell."""
    page = seen.page
    page.wait_for_selector("#model option", state="attached")
    page.fill("#length", str(TOKENS))
    for asked, (kept_back, verdict) in enumerate([(0, "holds"), (4, "does not hold")]):
        page.route(CHAT, partial(begun_with_reasoning, kept_back))
        page.fill("#question", QUESTION)
        page.press("#question", "Enter")
        turn = page.locator(".turn.answered").nth(asked)
        turn.locator(".proof .badge.good, .proof .badge.bad").first.wait_for(timeout=ANSWER_MS)
        assert turn.locator(".reasoning").get_attribute("open") is None, "folded until asked for"
        thought = turn.locator(".reasoning .words")
        assert not thought.is_visible()
        turn.locator(".reasoning summary").click()
        assert thought.is_visible()
        assert thought.text_content() not in ("", turn.locator("> .words").text_content())
        step = turn.locator('.steps li:has(strong:text-is("the text"))')
        assert step.locator(".badge").text_content() == verdict
        assert "this reasoning and this text" in (step.text_content() or "")
        page.unroute(CHAT)


def begun_with_reasoning(kept_back: int, route: Any) -> None:
    answer = route.fetch()
    head, *pieces = answer.text().split('"delta":{"content":')
    at = len(pieces) // 2
    assert at > kept_back, "the answer came in few pieces"
    told = [f'"delta":{{"reasoning_content":{piece}' for piece in pieces[:at]]
    told = told[: at - kept_back] + [f'"delta":{{"content":{piece}' for piece in pieces[at:]]
    route.fulfill(response=answer, body=head + "".join(told))


REFUSALS: list[tuple[dict[str, Any], str, str]] = [
    ({"status": 402, **error_of("insufficient_credit")}, "insufficient_credit", "no credit left"),
    (
        {"status": 503, **error_of("no_capacity"), "headers": {"retry-after": "7"}},
        "no_capacity",
        "Try again in 7 s.",
    ),
    ({"status": 401, **error_of("invalid_api_key")}, "invalid_api_key", "below, under Keys"),
    ({"body": 'data: {"choices": []}\n\n'}, "cut_off", "cut off"),
    ({"body": f"data: {json.dumps(error_of('timeout')['json'])}\n\n"}, "timeout", "too long"),
]


def refused(seen: Visit) -> None:
    """Errors are told by their code, in words, before an answer and within one."""
    page = seen.page
    seen.expected |= {401, 402, 503}
    page.wait_for_selector("#model option", state="attached")
    for answer, code, said in REFUSALS:
        page.route(CHAT, partial(fulfilled, answer))
        page.fill("#question", QUESTION)
        page.click("#send")
        notice = page.wait_for_selector(f".notice:has-text('({code})')")
        assert said in notice.inner_text()
        page.unroute(CHAT)
    assert page.is_visible("#key"), "who needs a key is shown where to put it"
    page.route(CHAT, lambda route: route.abort())
    page.fill("#question", QUESTION)
    page.click("#send")
    page.wait_for_selector(".notice:has-text('(unreachable)')")
    seen.faults = [fault for fault in seen.faults if "ERR_FAILED" not in fault]


def fulfilled(answer: dict[str, Any], route: Any) -> None:
    route.fulfill(**answer)


def receipts_checked(browser: Any, url: str, file: Path) -> None:
    """The receipt page: the good file, a planted bad one, and what is none."""
    (record,) = read_records(file.read_bytes())
    forged = bytearray(record.receipt)
    forged[-3] ^= 1
    bad = file.with_name("bad.receipt")
    bad.write_bytes(write_records([record, replace(record, receipt=bytes(forged))]))
    for look in ("light", "phone"):
        with visit(browser, f"{url}/receipt", look) as seen:
            page = seen.page
            page.set_input_files("#file", file)
            assert page.wait_for_selector("article .badge").inner_text() == "Holds"
            page.set_input_files("#file", bad)
            page.wait_for_selector("article >> nth=1")
            badges = page.query_selector_all("article > .head .badge")
            assert [one.inner_text() for one in badges] == ["Holds", "Does not hold"]
            page.click("article >> nth=1 >> summary >> nth=0")
            second = "article:nth-of-type(2)"
            assert outcome(seen, "receipt signature", second) == "does not hold"
            seen.picture("receipt", full_page=True)
    with visit(browser, f"{url}/receipt", "dark") as seen:
        page = seen.page
        page.fill("#pasted", base64.b64encode(record.encode()).decode())
        page.click("button[type=submit]")
        assert page.wait_for_selector("article .badge").inner_text() == "Holds"
        page.fill("#coordinator", "00" * 32)
        page.click("button[type=submit]")
        page.wait_for_selector("article .badge.bad")
        page.fill("#pasted", "no receipt")
        page.click("button[type=submit]")
        page.wait_for_selector(".notice.bad")
