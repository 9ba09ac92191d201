"""Which requests with images an engine refuses, and with which code."""

from __future__ import annotations

from dataclasses import replace

import pytest

from assay_node.engine import wire
from assay_node.engine.frames import Deframer
from assay_node.engine.interface import EngineInfo, Generate, Replay
from assay_node.engine.requests import check_generate, check_replay
from assay_protocol.errors import AssayError, ProtocolError
from assay_protocol.images import IMAGE_TOKEN, spelled
from assay_protocol.limits import IMAGES_BYTES_MAX, IMAGES_MAX
from assay_protocol.messages import Sampler
from vision_cases import image

COUNT = 20
PLAIN = EngineInfo(bytes(32), 100, 500, 1, "x", frozenset(), "cpu", tells_prompts=True)
SEES = replace(PLAIN, image_tokens=COUNT)
SAMPLER = Sampler(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0)
ONE, OTHER = image(1), image(2)
PROMPT = (1, 2, *spelled(ONE, COUNT), 3)
ASKED = Generate(PROMPT, 0, 5, SAMPLER, bytes(32), images=(ONE,))
TOLD = replace(SAMPLER, prompt_logprobs=1)
LARGE = replace(ONE, width=1, height=IMAGES_BYTES_MAX // 3 + 1)

REFUSED = {
    "a model without a projector": (PLAIN, ASKED, "image_refused"),
    "spelled for a model without one": (PLAIN, replace(ASKED, images=()), "image_refused"),
    "no pixels": (SEES, replace(ASKED, images=()), "image_mismatch"),
    "other pixels": (SEES, replace(ASKED, images=(OTHER,)), "image_mismatch"),
    "one too many": (SEES, replace(ASKED, images=(ONE, OTHER)), "image_mismatch"),
    "not spelled": (SEES, replace(ASKED, prompt=(1, 2, 3)), "image_mismatch"),
    "spelled in part": (SEES, replace(ASKED, prompt=PROMPT[:-2]), "image_mismatch"),
    "no such token": (SEES, replace(ASKED, prompt=(100, *PROMPT)), "malformed"),
    "almost an image": (SEES, replace(ASKED, prompt=(IMAGE_TOKEN - 1, *PROMPT)), "malformed"),
    "in the answer so far": (SEES, replace(ASKED, start=2), "malformed"),
    "told of": (SEES, replace(ASKED, sampler=TOLD), "sampler_refused"),
    "too many": (SEES, replace(ASKED, images=(ONE,) * (IMAGES_MAX + 1)), "image_refused"),
    "pixels missing": (SEES, replace(ASKED, images=(LARGE,)), "image_refused"),
    "too long": (SEES, replace(ASKED, max_tokens=500), "prompt_too_long"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_has_its_code(name: str) -> None:
    info, request, code = REFUSED[name]
    with pytest.raises((AssayError, ProtocolError)) as refused:
        check_generate(info, request)
    assert refused.value.code == code


def test_what_is_right_passes() -> None:
    check_generate(SEES, ASKED)
    check_generate(SEES, replace(ASKED, prompt=spelled(ONE, COUNT)))  # an image and nothing else
    check_generate(SEES, replace(ASKED, prompt=(*PROMPT, 4, 5), start=3))
    check_generate(SEES, replace(ASKED, prompt=(1,), images=()))
    check_replay(SEES, Replay(PROMPT, (4,), 0, SAMPLER, bytes(32), images=(ONE,)))


def test_no_image_is_an_answer() -> None:
    output = spelled(ONE, COUNT)
    with pytest.raises(AssayError) as refused:
        check_replay(SEES, Replay(PROMPT, output, 0, SAMPLER, bytes(32), images=(ONE,)))
    assert refused.value.code == "malformed"


def test_images_pass_the_pipe_whole() -> None:
    replay = Replay(PROMPT, (4,), 0, SAMPLER, bytes(32), images=(ONE, OTHER))
    (asked,) = Deframer().feed(wire.generate_frame(7, ASKED))
    (again,) = Deframer().feed(wire.replay_frame(8, replay))
    (ready,) = Deframer().feed(wire.ready_frame(SEES))
    assert wire.read_generate(asked) == (7, ASKED)
    assert wire.read_replay(again) == (8, replay)
    assert wire.read_ready(ready) == SEES
