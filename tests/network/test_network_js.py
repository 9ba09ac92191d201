"""Against js-libp2p, an independent implementation: both directions, small and 1 MB frames."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import trio
from libp2p.peer.id import ID

from assay_network import identity
from assay_network.frames import EndOfFrames, Frames
from assay_network.host import open_host
from assay_protocol.errors import AssayError

pytestmark = [pytest.mark.interop, pytest.mark.slow]

SOURCES = Path(__file__).parent / "js"
PROTOCOL = "/assay/interop/echo/1"
INSTALL_SECONDS_MAX = 240
# Our own launcher is called `node` inside the virtual environment: look past it.
PATH = os.pathsep.join(
    folder
    for folder in os.environ.get("PATH", "").split(os.pathsep)
    if Path(folder).resolve() != Path(sys.prefix, "bin").resolve()
)
NODE = shutil.which("node", path=PATH)
NPM = shutil.which("npm", path=PATH)
needs_node = pytest.mark.skipif(not (NODE and NPM), reason="Node.js and npm are not installed")


@pytest.fixture(scope="module")
def js_folder() -> Path:
    """The JavaScript peer with its packages, installed once per version of package.json."""
    package = (SOURCES / "package.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "assay"
    folder = cache / f"js-{hashlib.sha256(package).hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    for source in SOURCES.iterdir():
        if source.is_file():
            shutil.copy(source, folder)
    if not (folder / "installed").exists():
        assert NPM is not None
        subprocess.run(
            [NPM, "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"],
            cwd=folder,
            check=True,
            capture_output=True,
            timeout=INSTALL_SECONDS_MAX,
            env={**os.environ, "PATH": PATH},
        )
        (folder / "installed").touch()
    return folder


def command(*args: str) -> list[str]:
    assert NODE is not None
    return [NODE, "--require", "./polyfill.cjs", "peer.js", *args]


async def echo(peer: bytes, frames: Frames) -> None:
    while True:
        try:
            await frames.send(await frames.receive(10.0))
        except EndOfFrames:
            return


@needs_node
@pytest.mark.parametrize("muxer", ["fast", "stock"])
async def test_js_dials_us(js_folder: Path, muxer: str) -> None:
    async with open_host(b"\x01" * 32, ["/ip4/127.0.0.1/tcp/0"], muxer=muxer) as host:
        host.serve(PROTOCOL, echo)
        with trio.fail_after(30):
            done = await trio.run_process(
                command("dial", host.addresses[0]),
                cwd=js_folder,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        assert (done.returncode, done.stdout) == (0, b"ok\n"), done.stderr.decode()


@needs_node
@pytest.mark.parametrize("muxer", ["fast", "stock"])
async def test_we_dial_js(js_folder: Path, muxer: str) -> None:
    async with trio.open_nursery() as nursery, open_host(b"\x02" * 32, muxer=muxer) as host:
        process = await nursery.start(
            partial(
                trio.run_process,
                command("listen"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=js_folder,
                check=False,
            )
        )
        with trio.fail_after(30):
            address = (await process.stdout.receive_some(4096)).decode().strip()
            peer = identity.public_key(ID.from_base58(address.split("/p2p/")[1]))
            await host.dial(peer, [address])
            for body in (b"from us", os.urandom(1 << 20)):
                assert await host.call(peer, PROTOCOL, body, 10.0) == body
            async with host.open(peer, PROTOCOL, b"1") as frames:
                await frames.send_many([b"2", b"3"])
                assert [await frames.receive(5.0) for _ in range(3)] == [b"1", b"2", b"3"]
                await frames.finish()
                with pytest.raises(EndOfFrames):
                    await frames.receive(5.0)
            # js resets behind its "na", and the stock muxer drops what it had not yet read.
            codes = "unsupported_protocol" if muxer == "fast" else "unsupported_protocol|peer_gone"
            with pytest.raises(AssayError, match=codes):
                await host.call(peer, "/assay/nothing", b"", 5.0)
        process.terminate()
