"""The images of a loop's jobs: encoded beside the decode loop, once, and kept while there is room.

A projector takes up to seconds for an image, so a thread of its own does it while other answers go
on, one image at a time; tenants take turns (turns.py). What it made is kept by the image's digest:
another question about it, or its replay, encodes nothing. The memory is bounded: a job's images
stay until it is over. One whose images find no room waits for others to end, and nobody passes it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from assay_node.engine.interface import Generate, Replay
from assay_node.engine.spans import Seen, Spans
from assay_node.engine.turns import Turns
from assay_protocol.errors import AssayError
from assay_protocol.images import image_digest, spans
from assay_protocol.limits import IMAGES_MAX
from assay_protocol.messages import Image

if TYPE_CHECKING:
    from assay_node.engine.projector import Embedded, Projector

KEPT_BYTES_MAX: Final = 256 << 20  # or IMAGES_MAX images, if they take more
LOOKING_MAX: Final = 256
WAIT_SECONDS: Final = 0.02  # a loop with nothing else to do looks again so soon

Request = Generate | Replay


@dataclass(slots=True)
class _Looking:
    """A job that waits for its images."""

    job: int
    request: Request
    digests: tuple[bytes, ...]

    @property
    def tenant(self) -> bytes:
        return self.request.tenant if isinstance(self.request, Generate) else b""

    @property
    def cost(self) -> int:
        return len(self.digests)


class Gallery:
    """Only its thread calls `projector.encode`; everything else is the decode loop's."""

    def __init__(self, projector: Projector, bytes_max: int = KEPT_BYTES_MAX) -> None:
        self._projector = projector
        self._room = max(IMAGES_MAX, bytes_max // projector.image_bytes)  # in images
        self._waiting: Turns[_Looking] = Turns(IMAGES_MAX)
        self._looking: _Looking | None = None  # whose images are encoded now
        self._encoding: tuple[bytes, Future[Embedded]] | None = None
        self._kept: dict[bytes, Embedded] = {}  # the one used least recently first
        self._holders: dict[int, tuple[bytes, ...]] = {}  # digests by job
        self._encoder: ThreadPoolExecutor | None = None
        self.encoded = 0

    def __bool__(self) -> bool:
        """Whether any job waits for its images."""
        return self._looking is not None or len(self._waiting) > 0

    @property
    def tokens(self) -> int:
        """Positions an image takes."""
        return self._projector.tokens

    def spans(self, request: Request) -> Spans:
        """Where its prompt has images; raises ProtocolError("image_mismatch")."""
        begins = spans(request.prompt, request.images, self.tokens)
        return Spans(tuple(begins), self.tokens, self._projector.whole)

    def look(self, job: int, request: Request) -> None:
        """Begin to encode the request's images; raises AssayError("busy")."""
        if len(self._waiting) >= LOOKING_MAX:
            raise AssayError("busy")
        digests = tuple(image_digest(image) for image in request.images)
        self._waiting.add(_Looking(job, request, digests))

    def ready(self, *, block: bool) -> list[tuple[int, Request, AssayError | None]]:
        """The jobs whose images are all here now, or why they cannot be; with `block` waits a
        moment for one that is being encoded."""
        if block and self._encoding is not None:
            wait([self._encoding[1]], timeout=WAIT_SECONDS)
        found: list[tuple[int, Request, AssayError | None]] = []
        while True:
            failure = self._take_encoded()
            if failure is not None and self._looking is not None:
                found.append((self._looking.job, self._looking.request, failure))
                self.drop(self._looking.job)
            if self._encoding is not None or not self._take_turn():
                return found
            looking = self._looking
            assert looking is not None
            missing = next((n for n, d in enumerate(looking.digests) if d not in self._kept), None)
            if missing is not None:
                self._encode(looking.digests[missing], looking.request.images[missing])
                return found
            found.append((looking.job, looking.request, None))
            self._looking = None

    def rows(self, job: int, seen: Seen, count: int) -> Embedded:
        """The embeddings of a piece of one of its images, `count` positions."""
        digest = self._holders[job][seen.number]
        return self._kept[digest][seen.row : seen.row + count]

    def drop(self, job: int) -> None:
        """It is over, or given up; nothing happens if it has no images."""
        self._holders.pop(job, None)
        if self._looking is not None and self._looking.job == job:
            self._looking = None
        for waiting in self._waiting:
            if waiting.job == job:
                self._waiting.remove(waiting)
                return

    def close(self) -> None:
        if self._encoder is not None:
            self._encoder.shutdown(cancel_futures=True)
        self._projector.close()

    def _take_encoded(self) -> AssayError | None:
        """Keep what was encoded meanwhile, whoever asked for it; or why that failed."""
        if self._encoding is None or not self._encoding[1].done():
            return None
        (digest, future), self._encoding = self._encoding, None
        error = future.exception()
        if isinstance(error, AssayError):
            wanted = self._looking is not None and digest in self._looking.digests
            return error if wanted else None
        self._kept[digest] = future.result()
        self.encoded += 1
        self._forget()
        return None

    def _take_turn(self) -> bool:
        """Whether there is a job now whose images may be encoded."""
        if self._looking is None:
            self._looking = self._waiting.take(lambda _: True)
        looking = self._looking
        if looking is None or (looking.job not in self._holders and not self._has_room(looking)):
            return False
        self._hold(looking.job, looking.digests)
        return True

    def _has_room(self, looking: _Looking) -> bool:
        return len(self._held().union(looking.digests)) <= self._room

    def _held(self) -> set[bytes]:
        return {digest for digests in self._holders.values() for digest in digests}

    def _hold(self, job: int, digests: tuple[bytes, ...]) -> None:
        self._holders[job] = digests
        for digest in digests:
            if digest in self._kept:
                self._kept[digest] = self._kept.pop(digest)
        self._forget()

    def _forget(self) -> None:
        """The images used least recently, so that those which are held find room."""
        held = self._held()
        coming = len(held - self._kept.keys())
        while len(self._kept) + coming > self._room:
            oldest = next((digest for digest in self._kept if digest not in held), None)
            if oldest is None:  # given up while it was encoded: it goes next
                break
            del self._kept[oldest]

    def _encode(self, digest: bytes, image: Image) -> None:
        if self._encoder is None:
            self._encoder = ThreadPoolExecutor(1, "images")
        encode: Callable[[Image], Embedded] = self._projector.encode
        self._encoding = (digest, self._encoder.submit(encode, image))
