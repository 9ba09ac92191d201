"""Runs the verify modules of the pages: in Node.js, and in Chromium as a page would.

Both answer the calls of calls.js. Chromium gets the files as from a server on this machine, which
makes its cryptography available; no server runs.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from end_to_end.pages import open_browser

Call = Callable[..., Any]
MODULES: Final = Path(str(files("assay_network") / "web" / "verify"))
PROGRAMS: Final = Path(__file__).parent
ORIGIN: Final = "http://127.0.0.1:9"
_PAGE: Final = "([name, args]) => import('/calls.js').then((calls) => calls.call(name, args))"
# Our own launcher is called `node` inside the virtual environment: look past it.
_PATH: Final = os.pathsep.join(
    folder
    for folder in os.environ.get("PATH", "").split(os.pathsep)
    if Path(folder).resolve() != Path(sys.prefix, "bin").resolve()
)
NODE: Final = shutil.which("node", path=_PATH)


@contextmanager
def in_node(folder: Path) -> Iterator[Call]:
    """Calls answered by Node.js; the modules are copied to `folder`, where they are ES modules."""
    assert NODE is not None
    shutil.copytree(MODULES, folder / "verify")
    for program in ("calls.js", "lines.js"):
        shutil.copy(PROGRAMS / program, folder)
    (folder / "package.json").write_text('{"type": "module"}')
    command = [NODE, "--no-warnings", str(folder / "lines.js")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def call(name: str, *args: Any) -> Any:
            stdin.write(json.dumps({"name": name, "args": given(list(args))}) + "\n")
            stdin.flush()
            return told(json.loads(stdout.readline()))

        yield call
        stdin.close()


@contextmanager
def in_chromium() -> Iterator[Call]:
    """Calls answered by a page; the browser lives in a thread of its own, as it must."""
    with ThreadPoolExecutor(1) as thread:
        opened = open_browser()
        browser = thread.submit(opened.__enter__).result()

        def open_page() -> Any:
            page = browser.new_page()
            page.route(f"{ORIGIN}/**", _serve)
            page.goto(f"{ORIGIN}/")
            return page

        page = thread.submit(open_page).result()

        def call(name: str, *args: Any) -> Any:
            asked = [name, given(list(args))]
            return told(thread.submit(page.evaluate, _PAGE, asked).result())

        try:
            yield call
        finally:
            thread.submit(opened.__exit__, None, None, None).result()


def _serve(route: Any) -> None:
    path = route.request.url.removeprefix(ORIGIN)
    if path == "/":
        route.fulfill(content_type="text/html", body="<!doctype html><title>-</title>")
        return
    folder = PROGRAMS if path == "/calls.js" else MODULES
    file = folder / Path(path).name
    route.fulfill(content_type="text/javascript", body=file.read_text())


def given(value: Any) -> Any:
    """Bytes and big integers as calls.js reads them."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, bool) or value is None or isinstance(value, str | float):
        return value
    if isinstance(value, int):
        return {"int": str(value)}
    if isinstance(value, list | tuple):
        return [given(one) for one in value]
    return {name: given(one) for name, one in value.items()}


def told(value: Any) -> Any:
    """The inverse of `given`."""
    if isinstance(value, list):
        return [told(one) for one in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"hex"}:
        return bytes.fromhex(value["hex"])
    if value.keys() == {"int"}:
        return int(value["int"])
    return {name: told(one) for name, one in value.items()}
