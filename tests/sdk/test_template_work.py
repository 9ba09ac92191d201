"""Templates that do too much: each is refused before it has taken much time or memory."""

from __future__ import annotations

import json
import tracemalloc
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from assay.chat_template import ChatTemplate
from assay.template_environment import DateWriter, template_environment
from assay.template_metering import WORK
from assay.template_work import BITS_MAX, DEPTH_MAX, STEPS_MAX, TEXT_STEP, Work
from assay_protocol.errors import AssayError
from llama_vocabulary import VOCABULARIES, needs_vocabularies
from sdk.gateway_world import chat_card

STEPS = 1 << 14
NS = "{% set n = namespace(x='a'*99, y=1, l=[0], m=[0]) %}"
MUCH = {
    "loops": "{% for i in range(999) %}{% for j in range(999) %}{% endfor %}{% endfor %}",
    "a loop that lets nothing in": (
        "{% for i in range(999) %}{% for j in range(999) if false %}{% endfor %}{% endfor %}"
    ),
    "a loop into itself": (
        "{% for x in range(99) recursive %}{{ loop(range(9999)) if x else '' }}{% endfor %}"
    ),
    "macros": (
        "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(30) }}"
    ),
    "letters that stand there": (
        "{% for i in range(9999) %}{% set y %}" + "x" * 9999 + "{% endset %}{% endfor %}"
    ),
    "letters in a macro": (
        "{% macro f() %}" + "x" * 9999 + "{% endmacro %}"
        "{% for i in range(9999) %}{% set y = f() %}{% endfor %}"
    ),
    "a text many times": "{{ ('a' * 10**9)[:1] }}",
    "a list many times": "{{ (10**9 * [0])|length }}",
    "joined to itself": NS + "{% for i in range(40) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "added to itself": NS + "{% for i in range(40) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "lists added": NS + "{% for i in range(40) %}{% set n.l = n.l + n.l %}{% endfor %}",
    "a filter replaces": NS + "{% set n.x = n.x|replace('a', n.x * 99) %}",
    "a method replaces": NS + "{% set n.x = n.x.replace('a', n.x * 99) %}",
    "a filter joins": "{{ (['a'] * 999)|join('b' * 9999) }}",
    "a method joins": "{{ ('b' * 9999).join(['a'] * 999) }}",
    "values in values written": (
        NS + "{% for i in range(40) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l }}"
    ),
    "values in values as JSON": (
        NS + "{% for i in range(40) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l|tojson }}"
    ),
    "values in values compared": (
        NS + "{% for i in range(40) %}{% set n.l = [n.l, n.l] %}{% set n.m = [n.m, n.m] %}"
        "{% endfor %}{{ n.l == n.m }}"
    ),
    "JSON that is mostly room": (
        "{% set n = namespace(x=[0] * 999) %}{% for i in range(50) %}{% set n.x = [n.x] %}"
        "{% endfor %}{{ n.x|tojson(indent=16) }}"
    ),
    "texts compared": (
        "{% set x = 'a' * 9999 %}{% set y = 'a' * 9999 %}"
        "{% for i in range(9999) %}{{ 'b' if x == y else 'c' }}{% endfor %}"
    ),
    "looked for in a list": (
        "{% set x = range(999)|list %}{% for i in range(999) %}{{ -1 in x }}{% endfor %}"
    ),
    "cut again and again": (
        "{% set x = 'a' * 9999 %}{% for i in range(999) %}{% set y = x[1:] %}{% endfor %}"
    ),
    "one field many times": "{{ ('{0}' * 99).format('a' * 9999) }}",
    "percents": "{{ ('%s' * 99) % (('a' * 9999,) * 99) }}",
    "sorted": "{{ (['a' * 999] * 99)|sort }}",
    "a generator": "{{ range(9999)|map('string')|map('upper')|list }}",
}  # fmt: skip
NEVER = {
    "a width": "{{ '{:>1000000000}'.format(1) }}",
    "a width by another": "{{ '{:{}}'.format(1, 10**9) }}",
    "a width in percent": "{{ '%1000000000d' % 1 }}",
    "a width from elsewhere": "{{ '%*d' % (1000000000, 1) }}",
    "a width in a test": "{{ '%1000000000d' is odd }}",
    "padding": "{{ 'a'.ljust(10**9) }}",
    "padding by a filter": "{{ 'a'|center(10**9) }}",
    "padding by a filter that is named": "{{ ['a']|map('center', 10**9)|list }}",
    "tabs": "{{ '\t'.expandtabs(10**9) }}",
    "letters for letters": "{{ 'aaaa'.translate({97: 'b' * 999}) }}",
    "bytes": "{{ (1).to_bytes(10**9, 'big') }}",
    "a power": "{{ 9 ** (10**8) % 7 }}",
    "integers": NS + "{% for i in range(9999) %}{% set n.y = n.y + n.y %}{% endfor %}",
    "integers by minus": NS + "{% for i in range(9999) %}{% set n.y = n.y - -n.y %}{% endfor %}",
    "integers of a text": "{{ ('f' * 9999)|int(0, 16) % 7 }}",
    "lists summed": "{{ [[0], [0]]|sum(start=[]) }}",
    "room": "{{ 'a\na'|indent(10**9) }}",
    "letters to strip": "{{ 'aaa'.strip('b' * 999) }}",
    "a filter that strips": "{{ 'aaa'|trim('b' * 999) }}",
    "a value within itself": "{% set n = namespace() %}{% set n.x = n %}{{ n }}",
    "a namespace in a list": "{% set n = namespace() %}{% set n.x = n %}{{ [n]|string }}",
    "values too deep": (
        "{% set n = namespace(x=[0]) %}{% for i in range(99) %}{% set n.x = [n.x] %}{% endfor %}"
        "{{ n.x }}"
    ),
    "a block into itself": "{% block b %}{{ self.b() }}{% endblock %}",
    "random words": "{{ lipsum() }}",
    "a class's own methods": "{{ dict.fromkeys([1], 2) }}",
}


def render(source: str, work: Work, **known: Any) -> str:
    return template_environment().from_string(source).render({WORK: work} | known)


def _refused(source: str) -> tuple[BaseException, int]:
    """Why, and the bytes it took at most."""
    template = template_environment().from_string(source)
    tracemalloc.start()
    try:
        with pytest.raises(Exception) as caught:  # of any kind: see the callers
            template.render({WORK: Work(STEPS)})
        return caught.value, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("source", MUCH.values(), ids=MUCH)
def test_what_takes_long_or_much_room_is_refused_before_it_does(source: str) -> None:
    error, most = _refused(source)
    assert isinstance(error, AssayError), error
    assert "does too much" in error.message
    assert most < 4 * STEPS * (TEXT_STEP + 64)


@pytest.mark.parametrize("source", NEVER.values(), ids=NEVER)
def test_what_has_no_place_in_a_chat_is_refused_at_once(source: str) -> None:
    with pytest.raises(AssayError) as caught:
        ChatTemplate(chat_card(chat_template=source)).render([{"role": "user", "content": "x"}])
    assert caught.value.code == "malformed"
    assert "does too much" not in caught.value.message


def test_no_template_gets_hold_of_its_work() -> None:
    """Its name is none of a template's, and what it spends is never less than nothing."""
    work = Work(STEPS)
    for source in (
        "{{ [-9999]|map(' spend')|list }}",
        "{% set work = 1 %}{{ work }}{{ self._context }}",
        "{% for i in [1] %}{{ self['work left'] }}{% endfor %}",
    ):
        before = work.left
        render(source, work)
        assert work.left < before


@pytest.mark.parametrize(
    "source",
    ["{% for a in [1] %}" * 40 + "{% endfor %}" * 40, "{{ " + "(" * 9_000 + ")" * 9_000 + " }}",
     "{% if 1 %}" * 2_000 + "{% endif %}" * 2_000, "{{ " + "+".join("1" * 9_000) + " }}"],
    ids=["loops", "brackets", "ifs", "sums"],
)  # fmt: skip
def test_what_python_cannot_compile_is_refused(source: str) -> None:
    with pytest.raises(AssayError) as caught:
        ChatTemplate(chat_card(chat_template=source))
    assert caught.value.code == "malformed"


def test_a_template_says_no_more_of_a_prompt_than_a_line() -> None:
    source = "{{ raise_exception(messages[0].content) }}"
    with pytest.raises(AssayError) as caught:
        ChatTemplate(chat_card(chat_template=source)).render(
            [{"role": "user", "content": "secret" * 999}]
        )
    assert len(caught.value.message) <= 512


values = st.recursive(
    st.text(max_size=9) | st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=30,
)  # fmt: skip


@given(value=values, indent=st.integers(0, 16))
def test_what_is_counted_is_no_less_than_what_is_written(value: Any, indent: int) -> None:
    for written in (str(value), json.dumps(value, ensure_ascii=False, indent=indent or None)):
        work = Work()
        work.spelled(value, indent)
        # Each value is a step, and has marks and a number's digits beside its text.
        assert len(written) <= (STEPS_MAX - work.left) * (TEXT_STEP + 330)


def test_numbers_and_depths_at_their_bounds() -> None:
    assert Work().made((1 << BITS_MAX) - 1)
    with pytest.raises(AssayError):
        Work().made(1 << BITS_MAX)
    value: Any = []
    for _ in range(DEPTH_MAX):
        value = [value]
    Work().spelled(value)
    with pytest.raises(AssayError):
        Work().spelled([value])


# ---- honest ones ----

PLAIN_TURN = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
LONG = [{"role": "system", "content": "S"}, *PLAIN_TURN * 100, PLAIN_TURN[0]]
TOOL = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}


@pytest.mark.model
@needs_vocabularies
def test_published_templates_render_as_without_the_counting_and_long_chats_too() -> None:
    assert VOCABULARIES is not None
    metered = template_environment()
    plain = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[type(one) for one in metered.extensions.values()],
    )
    plain.filters["tojson"] = _plain_json
    plain.globals["raise_exception"] = metered.globals["raise_exception"]
    alike = 0
    for path in sorted((VOCABULARIES / "templates").glob("*.jinja")):
        source = path.read_text()
        pair = metered.from_string(source), plain.from_string(source)
        for messages, tools in (
            (LONG, None),
            (PLAIN_TURN[:1], [{"type": "function", "function": TOOL}] * 9),
        ):
            known = {
                "messages": messages, "tools": tools, "add_generation_prompt": True,
                "bos_token": "<s>", "eos_token": "</s>",
                "strftime_now": DateWriter(date(2026, 3, 5)),
            }  # fmt: skip
            found, wanted = (_rendered(one, known) for one in pair)
            assert found == wanted, path.stem
            alike += found is not None
    assert alike >= 130


def _rendered(template: Any, known: dict[str, Any]) -> str | None:
    """None: it refuses such a chat, whoever asks."""
    try:
        text: str = template.render(known | {WORK: Work()})
    except AssayError:
        raise
    except Exception:  # its own refusal, of any kind
        return None
    return text


def _plain_json(value: Any, ensure_ascii: bool = False, **more: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **more)
