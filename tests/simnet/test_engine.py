"""The simulated engine: honest replays agree as real ones do, exact ones to the bit."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from assay_node.engine.interface import Generate, Replay, Replayed
from assay_protocol.limits import SKETCH_BYTES
from assay_protocol.sketches import leaf_distances
from assay_simnet.behaviours.engines import OtherWeights, ShownRight
from assay_simnet.engine import Engine
from assay_simnet.language import END, Language
from assay_simnet.workload import SAMPLER

LANGUAGE = Language(bytes(32), end_bias=-50.0)


def _asked(number: int) -> Generate:
    seed = hashlib.sha256(bytes([number])).digest()
    prompt = tuple(1 + byte % 63 for byte in seed[:24])
    return Generate(prompt, 0, 40, SAMPLER, seed)


def _written(engine: Engine, asked: Generate) -> tuple[tuple[int, ...], bytes, bytes]:
    chunks = list(engine.answer(asked))
    tokens = tuple(token for chunk in chunks for token in chunk.tokens)
    logits = b"".join(chunk.logits for chunk in chunks)
    return tokens, logits, b"".join(chunk.sketches for chunk in chunks)


def _replayed(engine: Engine, asked: Generate, output: tuple[int, ...]) -> Replayed:
    return engine.replay(Replay(asked.prompt, output, asked.start, asked.sampler, asked.seed))


def _wrong(replayed: Replayed, output: tuple[int, ...]) -> int:
    return sum(a != b for a, b in zip(replayed.drawn, output, strict=True))


def test_an_exact_replay_is_equal_bit_for_bit() -> None:
    asked = _asked(1)
    tokens, logits, sketches = _written(Engine(LANGUAGE, b"one", 0.0), asked)
    replayed = _replayed(Engine(LANGUAGE, b"two", 0.0), asked, tokens)
    assert len(tokens) == 40
    assert len(sketches) == 40 * SKETCH_BYTES
    assert (replayed.drawn, replayed.logits, replayed.sketches) == (tokens, logits, sketches)


def test_an_honest_replay_differs_by_noise_only() -> None:
    one, two = Engine(LANGUAGE, b"one"), Engine(LANGUAGE, b"two")
    wrong, far = 0, 0.0
    for number in range(12):
        asked = _asked(number)
        tokens, _, sketches = _written(one, asked)
        replayed = _replayed(two, asked, tokens)
        wrong += _wrong(replayed, tokens)
        far = max(far, *leaf_distances(sketches, replayed.sketches))
        assert len(replayed.gaps) == len(tokens)
    assert 2 <= wrong <= 30, "about three in a hundred, as measured of real engines"
    assert far < 0.03


def test_a_resumed_answer_is_the_unbroken_one() -> None:
    engine, asked = Engine(LANGUAGE, b"one", 0.0), _asked(2)
    tokens, _, sketches = _written(engine, asked)
    rest = replace(asked, prompt=asked.prompt + tokens[:13], start=13, max_tokens=27)
    again, _, more = _written(engine, rest)
    assert again == tokens[13:]
    assert more == sketches[13 * SKETCH_BYTES :]


def test_the_end_token_ends() -> None:
    chatty = Engine(Language(bytes(32), end_bias=50.0), b"one")
    [chunk] = chatty.answer(_asked(3))
    assert (chunk.tokens, chunk.finish) == ((END,), "stop")


def test_other_weights_are_other_tokens_and_other_sketches() -> None:
    cheap = OtherWeights(Engine(LANGUAGE, b"one"), "Q4_0")
    asked = _asked(4)
    tokens, _, sketches = _written(cheap, asked)
    replayed = _replayed(Engine(LANGUAGE, b"two"), asked, tokens)
    assert _wrong(replayed, tokens) >= 4
    assert min(leaf_distances(sketches, replayed.sketches)) > 0.05


def test_weights_in_a_span_only_show_there_only() -> None:
    mixed = OtherWeights(Engine(LANGUAGE, b"one"), "Q4_0", range(16, 32))
    asked = _asked(5)
    tokens, _, sketches = _written(mixed, asked)
    first, second, third = leaf_distances(
        sketches, _replayed(Engine(LANGUAGE, b"two"), asked, tokens).sketches
    )
    assert max(first, third) < 0.03 < 0.1 < second


def test_logits_shown_right_hide_other_weights_from_sketches_only() -> None:
    forger = ShownRight(Engine(LANGUAGE, b"one"), "Q4_0")
    asked = _asked(6)
    tokens, _, sketches = _written(forger, asked)
    replayed = _replayed(Engine(LANGUAGE, b"two"), asked, tokens)
    assert max(leaf_distances(sketches, replayed.sketches)) < 0.03
    assert _wrong(replayed, tokens) >= 4
