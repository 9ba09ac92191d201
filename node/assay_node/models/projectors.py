"""Projector files ("mmproj"): what makes embeddings of images, looked at before llama.cpp sees it.

Two kinds are served, of which every image takes the same number of positions: LLaVA's ("mlp", but
not where the file lists sizes to cut images for) and Gemma 3's. Counts follow llama.cpp
(`clip_n_output_tokens` in clip.cpp); the engine counts again when it is opened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from assay_node.models.card import file_sha256
from assay_node.models.gguf import GgufHeader, read_header
from assay_protocol.cards import ModelCard, Vision
from assay_protocol.errors import AssayError
from assay_protocol.limits import IMAGE_SIDE_MAX, IMAGE_TOKENS_MAX, IMAGE_TOKENS_MIN

_ARCHITECTURE: Final = "clip"
_F32: Final = 4
_WIDE_TENSORS: Final = 4  # of the feed-forward's width alive at once in the graph


@dataclass(frozen=True, slots=True)
class _Kind:
    """What of a kind of projector is not in its file, or stands there differently."""

    merged: int  # patches a side that become one position, if the file does not say
    whole: bool  # its positions see each other
    last: str  # the tensor that makes embeddings of the model's width,
    across: int  # in this one of its dimensions
    before: tuple[str, ...] = ()  # markers of the vocabulary around an image
    after: tuple[str, ...] = ()


KINDS: Final = {
    "mlp": _Kind(1, False, "mm.2.weight", 1),
    "gemma3": _Kind(
        4, True, "mm.input_projection.weight", 0, ("<start_of_image>",), ("<end_of_image>",)
    ),
}


@dataclass(frozen=True, slots=True)
class ProjectorFile:
    """What the header says. `memory_bytes`: weights and the largest tensors of one image.

    `whole`: an image's positions must be in one decode.
    """

    kind: str
    tokens: int
    side: int
    width: int
    memory_bytes: int
    whole: bool


def read_projector(path: Path) -> ProjectorFile:
    """Raises AssayError "model_missing" or "gguf_invalid", also for a kind that is not served."""
    header = read_header(path)
    if header.architecture != _ARCHITECTURE or not header.values.get("clip.has_vision_encoder"):
        raise AssayError("gguf_invalid", f"{path} is no projector of images")
    name = header.text("clip.projector_type") or header.text("clip.vision.projector_type")
    kind = KINDS.get(name)
    if kind is None:
        served = " and ".join(KINDS)
        raise AssayError("gguf_invalid", f"{path}: projectors {name!r} are not served: {served}")
    if header.lengths.get("clip.vision.image_grid_pinpoints"):
        raise AssayError("gguf_invalid", f"{path}: it cuts images by their size: not served")
    side, patch = header.number("vision.image_size"), header.number("vision.patch_size")
    merged = header.number("vision.projector.scale_factor", 0) if kind.merged > 1 else 1
    step = patch * (merged or kind.merged)
    if not 0 < step <= side <= IMAGE_SIDE_MAX or side % step:
        raise AssayError("gguf_invalid", f"{path}: {side} pixels are not patches of {patch}")
    tokens = (side // step) ** 2
    if not IMAGE_TOKENS_MIN <= tokens <= IMAGE_TOKENS_MAX:
        raise AssayError("gguf_invalid", f"{path}: an image would take {tokens} positions")
    memory = _memory(header, (side // patch) ** 2)
    return ProjectorFile(name, tokens, side, _width(header, kind), memory, kind.whole)


def check_projector(path: Path, model: GgufHeader) -> ProjectorFile:
    """What `path` says, if it is for a model of such a header; its sha256 is the caller's.

    Raises AssayError "model_missing" or "gguf_invalid".
    """
    found = read_projector(path)
    width = model.number("embedding_length")
    if found.width != width:
        told = f"{path} is for models of width {found.width}, this one has {width}"
        raise AssayError("gguf_invalid", told)
    return found


def vision_of(path: Path, model: Path, card: ModelCard) -> Vision:
    """How the card's model, whose file is `model`, reads images with the projector at `path`.

    Raises AssayError "model_missing", "gguf_invalid" or, where the vocabulary lacks the kind's
    markers, "card_invalid".
    """
    found = check_projector(path, read_header(model))
    token_of = _tokens_by_text(card)
    kind = KINDS[found.kind]
    return Vision(
        projector=file_sha256(path),
        size_bytes=path.stat().st_size,
        tokens=found.tokens,
        side=found.side,
        before=tuple(map(token_of, kind.before)),
        after=tuple(map(token_of, kind.after)),
    )


def _tokens_by_text(card: ModelCard) -> Callable[[str], int]:
    marks = {text: token for token, text in card.texts}

    def token_of(text: str) -> int:
        if text not in marks:
            raise AssayError("card_invalid", f"the vocabulary has no {text}")
        return marks[text]

    return token_of


def _width(header: GgufHeader, kind: _Kind) -> int:
    for tensor in header.tensors:
        if tensor.name == kind.last and len(tensor.dimensions) > kind.across:
            return tensor.dimensions[kind.across]
    raise AssayError("gguf_invalid", f"the projector has no {kind.last}")


def _memory(header: GgufHeader, patches: int) -> int:
    wide = header.number("vision.feed_forward_length")
    scores = header.number("vision.attention.head_count") * patches
    rows = _F32 * patches * (_WIDE_TENSORS * wide + 2 * scores)
    return rows + sum(tensor.size_bytes for tensor in header.tensors)
