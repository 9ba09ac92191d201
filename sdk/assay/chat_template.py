"""Renders a model's chat template so that nothing a user types can become a control token.

A template is written by the model's publisher; its `<|im_end|>` must become a control token. The
same letters typed by a user must stay plain text, or a user could close their own message and
speak as the system. So before rendering, every character of a message that control tokens are
spelled with is exchanged for a private stand-in; after the rendered text was cut at its control
tokens the stand-ins are exchanged back. What reaches the cut spelled as a control token was
therefore spelled by the template. Images are held in the text by stand-ins as well, each by one of
its own, so no text can pass for one. Only whole plain markers (`</think>`), which anybody may write
and which templates look for, stay readable.

The environment is that of the `transformers` library (template_environment.py), so that published
templates render alike. A template may ask for the day, never for the hour.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from jinja2.meta import find_undeclared_variables

from assay.template_environment import DateWriter, template_environment, today_utc
from assay.template_metering import WORK
from assay.template_work import Work
from assay.tokenizer import Tokenizer, control_texts, plain_texts
from assay_protocol.cards import ModelCard
from assay_protocol.errors import AssayError

MESSAGES_MAX: Final = 4_096
RENDERED_CHARACTERS_MAX: Final = 8 << 20
NESTING_MAX: Final = 32
ERROR_CHARACTERS_MAX: Final = 512  # of what a template says, and it may say a prompt
# Templates build control tokens from the role (`<|` + role + `|>`), so only known ones pass.
ROLES: Final = frozenset(
    {"system", "developer", "user", "assistant", "tool", "function", "ipython", "model"}
)
_KEY: Final = re.compile(r"[A-Za-z0-9_.$-]{1,128}")
_STAND_INS_FROM: Final = 0xF0000  # supplementary private use area A

_PROBE: Final = "probe"
_PROBE_PARTS: Final = [{"type": "text", "text": _PROBE}]

Message = Mapping[str, Any]
Scalar = bool | int | str


@dataclass(frozen=True, slots=True)
class Around:
    """A prompt without its images: the tokens around them, and which stands behind each piece but
    the last."""

    pieces: tuple[tuple[int, ...], ...]
    places: tuple[int, ...]


class ChatTemplate:
    """The chat template of one model, compiled once. `render` may be called from any thread."""

    def __init__(
        self,
        card: ModelCard,
        tokenizer: Tokenizer | None = None,
        *,
        today: Callable[[], date] = today_utc,
    ) -> None:
        """`today` gives the day, in UTC, to templates that write it into a prompt.

        Raises AssayError "malformed" if the template does not compile or is missing, and what
        `Tokenizer.from_card` raises if no tokenizer is given."""
        if not card.chat_template:
            raise AssayError("malformed", "the model has no chat template")
        self._tokenizer = tokenizer or Tokenizer.from_card(card)
        self._today = today
        self._reads_parts: bool | None = None  # of a content alone; known once it matters
        self._bos = card.bos if card.add_bos else None
        self._source = card.chat_template
        self._controls = control_texts(card)
        self._plain = plain_texts(card)
        written = dict(card.texts)
        self._names = {
            "bos_token": "" if card.bos is None else written.get(card.bos, ""),
            "eos_token": "" if card.eos is None else written.get(card.eos, ""),
        }
        try:
            environment = template_environment()
            self._template = environment.from_string(card.chat_template)
            parsed = environment.parse(card.chat_template)
        except Exception as error:  # nested too deep for Jinja, or for Python: many kinds
            said = f"the chat template is broken: {error}"[:ERROR_CHARACTERS_MAX]
            raise AssayError("malformed", said) from error
        # Names it sets in one branch and reads in another are among them; nobody asks for those.
        self.variables = frozenset(find_undeclared_variables(parsed))

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Scalar] | None = None,
        add_generation_prompt: bool = True,
    ) -> tuple[int, ...]:
        """Prompt token ids for `messages` ({"role": ..., "content": ...}, more keys allowed).

        `variables` are the template's own, such as `enable_thinking`.

        Raises AssayError("malformed") for messages of another shape and for whatever the
        template itself refuses, such as two user turns in a row.
        """
        made = self.render_around(
            messages, tools=tools, variables=variables, add_generation_prompt=add_generation_prompt
        )
        return made.pieces[0]

    def render_around(
        self,
        messages: Sequence[Message],
        *,
        images: int = 0,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Scalar] | None = None,
        add_generation_prompt: bool = True,
    ) -> Around:
        """The same for a chat with `images` images, each the part {"type": "image", "image": n} of
        some content. A content that holds one becomes a text, as llama-server makes it, unless the
        template reads parts alone: there each image is a part of text.

        Raises AssayError("malformed") as well if the template leaves an image out or repeats it.
        """
        _check_messages(messages)
        used = [list(messages), tools, variables, self._source]
        guard = _Guard(self._controls, self._plain, used, images)
        if images:
            messages = self._with_texts(messages, guard)
        context = guard.value(variables or {}) | {
            "messages": [guard.message(message) for message in messages],
            "tools": None if tools is None else guard.value(tools),
            "add_generation_prompt": add_generation_prompt,
            "strftime_now": DateWriter(self._today()),
        }
        rendered = self._render(context | self._names)
        texts, places = guard.cut(rendered)
        if sorted(places) != list(range(images)):
            raise AssayError("malformed", "the chat template leaves an image out, or repeats it")
        pieces = [self._tokens(text, guard) for text in texts]
        if self._bos is not None and pieces[0][:1] != [self._bos]:
            pieces[0].insert(0, self._bos)
        return Around(tuple(map(tuple, pieces)), tuple(places))

    def _tokens(self, text: str, guard: _Guard) -> list[int]:
        ids: list[int] = []
        for part in self._tokenizer.split(text, special=True):
            if isinstance(part, int):
                ids.append(part)
            else:
                ids += self._tokenizer.encode(guard.restore(part), special=False)
        return ids

    def _with_texts(self, messages: Sequence[Message], guard: _Guard) -> list[Message]:
        """Images as stand-ins in contents of the kind that the template reads."""
        if self._reads_parts is None:
            self._reads_parts = not self._shows(_PROBE) and self._shows(_PROBE_PARTS)
        return [
            {**message, "content": _with_marks(message["content"], guard.marks, self._reads_parts)}
            for message in messages
        ]

    def _shows(self, content: object) -> bool:
        """Whether a user's content of that kind is in the rendered text."""
        about = {"messages": [{"role": "user", "content": content}], "tools": None}
        told = {"add_generation_prompt": True, "strftime_now": DateWriter(self._today())}
        try:
            return _PROBE in self._render(about | told | self._names)
        except AssayError:
            return False

    def _render(self, context: dict[str, Any]) -> str:
        pieces: list[str] = []
        size = 0
        try:
            for piece in self._template.generate(context | {WORK: Work()}):
                size += len(piece)
                if size > RENDERED_CHARACTERS_MAX:
                    raise AssayError("malformed", "the rendered prompt is too long")
                pieces.append(piece)
        except AssayError:
            raise
        except Exception as error:  # template code may raise anything: bad types, recursion, ...
            said = f"the chat template refused: {error}"[:ERROR_CHARACTERS_MAX]
            raise AssayError("malformed", said) from error
        return "".join(pieces)


def render_chat(
    card: ModelCard,
    messages: Sequence[Message],
    *,
    tokenizer: Tokenizer | None = None,
) -> tuple[int, ...]:
    """Prompt token ids for one chat; keep a `ChatTemplate` when there are many."""
    return ChatTemplate(card, tokenizer).render(messages)


def _with_marks(content: Any, marks: Sequence[str], parts: bool) -> Any:
    """Images of a content as their stand-ins: in one text, or in texts of their own."""
    if isinstance(content, str) or not isinstance(content, Sequence):
        return [{"type": "text", "text": content}] if parts and content else content
    texts = [_text_of(part, marks) for part in content]
    return [{"type": "text", "text": text} for text in texts] if parts else "".join(texts)


def _text_of(part: Any, marks: Sequence[str]) -> str:
    match part:
        case {"type": "image", "image": int(number)} if 0 <= number < len(marks):
            return marks[number]
        case {"type": "text", "text": str(text)}:
            return text
    raise AssayError("malformed", "a part beside images must be text")


class _Guard:
    """Exchanges dangerous characters for stand-ins that occur nowhere else in this prompt."""

    def __init__(
        self, controls: Sequence[str], plain: Sequence[str], used: object, images: int
    ) -> None:
        self._controls = controls
        dangerous = sorted({char for text in controls for char in _spelling(text)})
        taken = _characters(used)
        free = (chr(code) for code in range(_STAND_INS_FROM, 0x110000) if chr(code) not in taken)
        self.marks = [next(free) for _ in range(images)]  # no text of this prompt has them
        stand_ins = dict(zip(dangerous, free, strict=False))
        self._hide = str.maketrans(stand_ins)
        self._show = str.maketrans({stand_in: char for char, stand_in in stand_ins.items()})
        # Plain markers (`</think>`) stay readable to the template: anybody may write them.
        harmless = [text for text in plain if not any(_overlap(text, c) for c in controls)]
        longest_first = sorted(map(re.escape, harmless), key=len, reverse=True)
        self._keep = re.compile(f"({'|'.join(longest_first)})") if harmless else None

    def message(self, message: Message) -> dict[str, Any]:
        """The role stays as it is: it was checked against ROLES."""
        guarded = self.value({key: value for key, value in message.items() if key != "role"})
        return {"role": message["role"], **guarded}

    def value(self, value: Any, depth: int = 0) -> Any:
        if depth > NESTING_MAX:
            raise AssayError("malformed", "a message is nested too deep")
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, Mapping):
            return {self._key(key): self.value(item, depth + 1) for key, item in value.items()}
        if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
            return [self.value(item, depth + 1) for item in value]
        raise AssayError("malformed", f"a message holds a {type(value).__name__}")

    def cut(self, text: str) -> tuple[list[str], list[int]]:
        """The texts between images, and which image stands behind each but the last."""
        if not self.marks:
            return [text], []
        found = re.split(f"([{''.join(self.marks)}])", text)
        return found[::2], [self.marks.index(mark) for mark in found[1::2]]

    def restore(self, text: str) -> str:
        return text.translate(self._show)

    def _key(self, key: object) -> str:
        """Templates look keys up, so they cannot be exchanged; only plain names may pass."""
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise AssayError("malformed", "a key in a message is not a plain name")
        if any(control in key for control in self._controls):
            raise AssayError("malformed", "a key in a message is a control token")
        return key

    def _text(self, text: str) -> str:
        if self._keep is None:
            return text.translate(self._hide)
        parts = self._keep.split(text)
        return "".join(
            part if i % 2 else part.translate(self._hide) for i, part in enumerate(parts)
        )


def _characters(used: object) -> set[str]:
    try:
        return set(json.dumps(used, ensure_ascii=False, default=dict))
    except (TypeError, ValueError, RecursionError) as error:
        raise AssayError("malformed", "a message is not plain data") from error


def _spelling(control: str) -> set[str]:
    """The characters whose absence makes `control` unspellable: its marks, else all of it."""
    marks = {char for char in control if not (char.isalnum() or char.isspace() or char == "_")}
    return marks or set(control)


def _overlap(plain: str, control: str) -> bool:
    """Whether a piece of `plain` could be a piece of `control` by itself or at a seam."""
    if control in plain or plain in control:
        return True
    ends = range(1, min(len(plain), len(control)))
    return any(plain[-n:] == control[:n] or plain[:n] == control[-n:] for n in ends)


def _check_messages(messages: Sequence[Message]) -> None:
    if not 1 <= len(messages) <= MESSAGES_MAX:
        raise AssayError("malformed", f"a chat has 1 to {MESSAGES_MAX} messages")
    for message in messages:
        role = message.get("role")
        if not isinstance(role, str) or role not in ROLES:
            raise AssayError("malformed", f"a role must be one of {', '.join(sorted(ROLES))}")
        if "content" not in message:
            raise AssayError("malformed", "a message has no content")
