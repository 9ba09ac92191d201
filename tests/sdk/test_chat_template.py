from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.chat_template import MESSAGES_MAX, NESTING_MAX, ChatTemplate, render_chat
from assay.tokenizer import Tokenizer
from assay_protocol.cards import ModelCard
from assay_protocol.errors import AssayError
from card_cases import small_card

FIRST_BYTE = 6
CONTROL = {0: "<|start|>", 1: "<|end|>", 2: "[INST]", 3: "EOT"}
CHAT = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n"
    "{{ message['content'] | trim }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def card_with(template: str, **changes: Any) -> ModelCard:
    pieces = (b"", b"", b"", b"", b"<think>", b"", *(bytes([byte]) for byte in range(256)))
    card = small_card(
        n_vocab=len(pieces),
        tokenizer_pre="gpt-2",
        pieces=pieces,
        token_types=bytes([3, 3, 3, 3, 4, 2]) + bytes([1]) * 256,
        merges=(),
        texts=(*CONTROL.items(), (4, "<think>"), (5, "<unk>")),
        chat_template=template,
    )
    return replace(card, **changes)


CARD = card_with(CHAT)
TEMPLATE = ChatTemplate(CARD)


def shown(ids: tuple[int, ...]) -> list[int | str]:
    """Control tokens as ids, and the plain text between them."""
    parts: list[int | str] = []
    run: list[int] = []
    tokenizer = Tokenizer.from_card(CARD)
    for token in [*ids, -1]:
        if token in (-1, *CONTROL, 5):
            parts += [tokenizer.decode(run)] if run else []
            parts += [token] if token >= 0 else []
            run = []
        else:
            run.append(token)
    return parts


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def test_a_chat_becomes_what_its_template_says() -> None:
    messages = [{"role": "system", "content": "Be brief."}, user("  2 < 3 | 4?\n")]
    expected = [0, "system\nBe brief.", 1, "\n", 0, "user\n2 < 3 | 4?", 1, "\n", 0, "assistant\n"]
    assert shown(render_chat(CARD, messages)) == expected
    assert shown(TEMPLATE.render(messages, add_generation_prompt=False)) == expected[:-2]


_SHARDS = st.sampled_from([
    *CONTROL.values(), "<unk>", "<think>", "<|", "|>", "<", ">", "|", "start", "end", "[", "]",
    "INST", "E", "OT", "EO", "T", "_", " ", "\n", "é", "\U000f0000", "\U000f0001", "\U000f0009",
])  # fmt: skip


@settings(max_examples=150)
@given(st.lists(_SHARDS, max_size=12).map("".join), st.lists(_SHARDS, max_size=6).map("".join))
def test_nothing_typed_becomes_a_control_token(first: str, second: str) -> None:
    prompt = TEMPLATE.render([user(first), user(second)])
    assert shown(prompt) == [
        *(0, f"user\n{first.strip()}", 1, "\n"),
        *(0, f"user\n{second.strip()}", 1, "\n", 0, "assistant\n"),
    ]


@pytest.mark.parametrize("cut", range(1, len("<|end|>")))
def test_two_harmless_halves_do_not_make_a_control_token(cut: int) -> None:
    glued = card_with("{% for m in messages %}{{ m.content }}{% endfor %}")
    halves = [user("<|end|>"[:cut]), user("<|end|>"[cut:])]
    assert shown(render_chat(glued, halves)) == ["<|end|>"]


def test_names_and_tools_are_kept_apart_too() -> None:
    template = ChatTemplate(card_with("{{ tools | tojson }}{{ messages[0].name }}<|end|>"))
    tools = [{"name": "f<|end|>", "max_n": 3, "deep": {"x": [None, True, "[INST]"]}}]
    prompt = template.render([user("") | {"name": "<|start|>"}], tools=tools)
    assert shown(prompt) == [
        '[{"name": "f<|end|>", "max_n": 3, "deep": {"x": [null, true, "[INST]"]}}]<|start|>',
        1,
    ]


def test_plain_markers_stay_readable_to_the_template() -> None:
    template = "{{ messages[0].content.split('<think>')[-1] }}<|end|>"
    assert shown(render_chat(card_with(template), [user("why<think>because")])) == ["because", 1]


def test_blocks_for_training_are_text_like_any_other() -> None:
    inside = "{% set said = messages[0].content %}b{{ said }}"
    template = "a{% generation %}" + inside + "{% endgeneration %}{{ said }}."
    assert shown(render_chat(card_with(template), [user("x")])) == ["abx."]


@pytest.mark.parametrize(("template", "starts"), [(CHAT, [0, 0]), ("{{ bos_token }}x", [0])])
def test_a_model_that_wants_a_start_token_gets_exactly_one(
    template: str, starts: list[int]
) -> None:
    prompt = render_chat(card_with(template, add_bos=True, bos=0), [user("x")])
    assert [token for token in prompt if token == 0] == starts
    prompt = render_chat(card_with("x", add_bos=True), [user("x")])
    assert shown(prompt) == [0, "x"]


@pytest.mark.parametrize(
    "template",
    [
        "",
        "{% if %}",
        "{{ raise_exception('roles must alternate') }}",
        "{{ 1 / 0 }}",
        "{{ messages[9].content.x }}",
        "{{ strftime_now('%q') }}",
        "{{ strftime_now('%') }}",
        "{{ strftime_now('%Y' * 99) }}",
        "{{ strftime_now(7) }}",
        "{{ messages | tojson(indent=10**9) }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% for i in range(10**9) %}x{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% for i in range(9999) %}{{ 'x' * 9999 }}{% endfor %}",
    ],
)
def test_a_template_that_fails_or_breaks_out_is_refused(template: str) -> None:
    with pytest.raises(AssayError) as refused:
        render_chat(card_with(template), [user("x")])
    assert refused.value.code == "malformed"


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [user("x")] * (MESSAGES_MAX + 1),
        [{"role": "user"}],
        [{"content": "x"}],
        [{"role": "end", "content": "x"}],
        [{"role": ["user"], "content": "x"}],
        [user(b"bytes")],
        [user({1: "x"})],
        [user({"<|end|>": "x"})],
        [user({"EOT": "x"})],
        [user(object())],
        [user(nested(NESTING_MAX + 2))],
        [user(nested(100_000))],
        [user("\ud800")],
    ],
)
def test_messages_of_another_shape_are_refused(messages: list[Any]) -> None:
    with pytest.raises(AssayError) as refused:
        TEMPLATE.render(messages)
    assert refused.value.code == "malformed"


def test_loop_controls_and_block_trimming_work_as_in_transformers() -> None:
    template = (
        "{% for m in messages %}\n    {% if loop.index > 1 %}\n{% break %}\n{% endif %}\n"
        "{{ m.content }}\n{% endfor %}\n"
    )
    assert shown(render_chat(card_with(template), [user("a"), user("b")])) == ["a\n"]


def test_a_template_may_ask_for_the_day_and_never_for_the_hour() -> None:
    template = "{{ strftime_now('%d %b %Y, %A, %-d/%-m, %H:%M:%S %Z') }}"
    card = card_with(template)
    dated = ChatTemplate(card, today=lambda: date(2026, 3, 5))
    assert shown(dated.render([user("x")])) == ["05 Mar 2026, Thursday, 5/3, 00:00:00 UTC"]
    before = datetime.now(UTC).date()
    today = shown(render_chat(card_with("{{ strftime_now('%F') }}"), [user("x")]))
    assert today in ([f"{before}"], [f"{datetime.now(UTC).date()}"])


def test_json_is_written_as_transformers_writes_it() -> None:
    template = (
        "{{ tools | tojson }} {{ tools | tojson(ensure_ascii=True, sort_keys=True) }} "
        "{{ tools | tojson(separators=(',', ':'), indent=1) }}"
    )
    tools = [{"b": "é<", "a": 1}]
    expected = (
        '[{"b": "é<", "a": 1}] [{"a": 1, "b": "\\u00e9<"}] [\n {\n  "b":"é<",\n  "a":1\n }\n]'
    )
    prompt = ChatTemplate(card_with(template)).render([user("x")], tools=tools)
    assert shown(prompt) == [expected]
