"""Static pages: what is sent with them, and what no file of a page may hold."""

from __future__ import annotations

import re

import pytest
from starlette.applications import Starlette

from asgi_caller import Caller
from assay_network.web_pages import WebFile, page_routes, web_files

FILES = list(web_files().values())
_MARKUP_FROM_TEXT = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|srcdoc"
    r"|DOMParser|\beval\(|new Function|setHTML|parseHTMLUnsafe|javascript:"
)
_INLINE = re.compile(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", re.IGNORECASE)
_ELSEWHERE = re.compile(r"""(?:src|href|from|import|fetch|url)\s*[=(]?\s*["'](?:https?:)?//""")


def caller() -> Caller:
    return Caller(Starlette(routes=page_routes({"/": "dashboard/index.html"})))


async def test_a_page_is_sent_with_the_policy_that_keeps_it_to_its_origin() -> None:
    answer = await caller().get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"].split("; ")
    assert {"default-src 'self'", "require-trusted-types-for 'script'"} <= set(policy)
    assert not any("unsafe" in rule or "http" in rule for rule in policy)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
async def test_every_file_is_there_as_what_it_is(file: WebFile) -> None:
    answer = await caller().get(f"/web/{file.name}")
    assert b"".join(answer.pieces) == file.content
    assert answer.headers["content-type"] == file.media_type
    assert "content-security-policy" in answer.headers


async def test_who_has_a_file_is_not_sent_it_again() -> None:
    etag = (await caller().get("/web/style.css")).headers["etag"]
    for said in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        answer = await caller().get("/web/style.css", headers={"if-none-match": said})
        assert (answer.status_code, answer.text, answer.headers["etag"]) == (304, "", etag)
    answer = await caller().get("/web/style.css", headers={"if-none-match": '"other"'})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/web", "/web/", "/web/../monitor.py", "/web/%2e%2e/monitor.py", "/web//etc/passwd", "/x"],
)
async def test_nothing_else_can_be_named(path: str) -> None:
    assert (await caller().get(path)).status_code == 404


async def test_pages_are_only_read() -> None:
    assert (await caller().post("/")).status_code == 405
    assert (await caller().request("HEAD", "/")).status_code == 200


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_file_makes_markup_from_text_or_leads_a_request_elsewhere(file: WebFile) -> None:
    text = file.content.decode()
    assert _MARKUP_FROM_TEXT.findall(text) == []
    assert _ELSEWHERE.findall(text) == []
    if file.name.endswith(".html"):
        assert _INLINE.findall(text) == []


def test_these_rules_find_offenders() -> None:
    assert _MARKUP_FROM_TEXT.search("node.innerHTML = name")
    assert _ELSEWHERE.search('<script src="//cdn.example/x.js">')
    assert _ELSEWHERE.search('import x from "https://cdn.example/x.js"')
    for inline in ("<script>x()</script>", "<p style='color:red'>", '<a onclick="x()">', "<style>"):
        assert _INLINE.search(inline)
    assert _INLINE.search('<script type="module" src="web/app.js"></script>') is None
