"""Models as a client needs them: found in the coordinator's list, their cards checked and kept.

A card is named by its digest, so a copy on disk is as good as a fresh one once that is checked.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from assay.large_texts import beside
from assay.reasoning_grammar import grammar_after_reasoning
from assay.reasoning_marks import Marks, marks_of, prompt_tail, shown_pieces
from assay.reasoning_split import Split
from assay_protocol.cards import ModelCard, card_digest, decode_card
from assay_protocol.errors import AssayError, ProtocolError
from assay_protocol.limits import CARD_BYTES_MAX
from assay_protocol.messages import GetModels, Models, ModelSummary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from assay.chat_template import ChatTemplate, Scalar
    from assay.coordinator_link import CoordinatorLink
    from assay.picture_prompt import PromptTokens
    from assay.tokenizer import Tokenizer


@dataclass(slots=True)
class Model:
    """One model: what the coordinator says of it, and its card."""

    summary: ModelSummary
    card: ModelCard
    _tokenizer: Tokenizer | None = None
    _template: ChatTemplate | None = None
    _marks: tuple[Marks | None, tuple[bytes, ...]] | None = None

    @property
    def marks(self) -> Marks | None:
        """What it writes its reasoning between; None if it does not reason, as far as is known."""
        return self._known_marks()[0]

    @property
    def pieces(self) -> tuple[bytes, ...]:
        """The card's, in which the marks of its reasoning can be read."""
        return self._known_marks()[1]

    def split_after(self, prompt: tuple[int, ...]) -> Split | None:
        """What tells reasoning from the answer to a chat's prompt; None if there is none."""
        return None if self.marks is None else self.marks.split(prompt_tail(self.card, prompt))

    def grammar_after(self, prompt: tuple[int, ...], packed: bytes) -> bytes | None:
        """The packed grammar, begun where reasoning ends; None if it binds from the first token."""
        if self.marks is None:
            return None
        tail = prompt_tail(self.card, prompt)
        return grammar_after_reasoning(self.card, self.marks, tail, packed)

    @property
    def image_tokens(self) -> int:
        """Places that an image takes in a prompt; 0: it reads none."""
        return 0 if self.card.vision is None else self.card.vision.tokens

    async def template_variables(self) -> frozenset[str]:
        """Names the chat template takes from outside, such as `enable_thinking`."""
        return (await self._made_template()).variables

    async def tokens_of_text(self, text: str) -> tuple[int, ...]:
        """Prompt tokens of plain `text`; control tokens written in it stay text."""
        tokenizer = await self._made_tokenizer()
        return await beside(lambda: tokenizer.encode(text, special=False, bos=True), text)

    async def tokens_to_embed(self, text: str) -> tuple[int, ...]:
        """Tokens of a text to embed, with the marks an encoder was trained with around it."""
        tokenizer = await self._made_tokenizer()
        return await beside(lambda: tokenizer.encode(text, special=False, bos=True, eos=True), text)

    async def prompt_of_chat(
        self,
        messages: Sequence[Mapping[str, object]],
        tools: Sequence[Mapping[str, object]] | None = None,
        variables: Mapping[str, Scalar] | None = None,
    ) -> PromptTokens:
        """The prompt of a chat under the model's template, which is told of `tools` and of
        `variables`; with the pictures in it (pictures.py).

        Raises AssayError("image_refused") if the model reads none, or not these.
        """
        from assay.picture_prompt import PromptTokens, spell_pictures
        from assay.pictures import has_pictures, take_pictures

        template = await self._made_template()
        about: Any = {"tools": tools, "variables": variables}
        if not has_pictures(messages):
            told = (messages, tools)
            return PromptTokens(await beside(lambda: template.render(messages, **about), *told))
        if self.card.vision is None:
            raise AssayError("image_refused", f"{self.summary.name} reads no images")
        texts, files = take_pictures(messages)
        around = await beside(
            lambda: template.render_around(texts, images=len(files), **about), texts, tools
        )
        shown = [files[number] for number in around.places]
        return await spell_pictures(self.card.vision, around.pieces, shown)

    def _known_marks(self) -> tuple[Marks | None, tuple[bytes, ...]]:
        if self._marks is None:
            marks = marks_of(self.card)
            self._marks = marks, shown_pieces(self.card, marks)
        return self._marks

    async def _made_template(self) -> ChatTemplate:
        from assay.chat_template import ChatTemplate

        if self._template is None:
            self._template = ChatTemplate(self.card, await self._made_tokenizer())
        return self._template

    async def _made_tokenizer(self) -> Tokenizer:
        from assay.tokenizer import Tokenizer

        if self._tokenizer is None:
            self._tokenizer = await trio.to_thread.run_sync(Tokenizer.from_card, self.card)
        return self._tokenizer


class Catalogue:
    """The coordinator's models; cards are kept under `folder`, if given."""

    def __init__(self, link: CoordinatorLink, folder: Path | None) -> None:
        self._link, self._folder = link, folder
        self._models: dict[bytes, Model] = {}

    async def summaries(self) -> tuple[ModelSummary, ...]:
        return (await self._link.read(Models, GetModels())).models

    async def model(self, name: str | None) -> Model:
        """The model of that name or hex digest; without one, the only model or the most served.

        Raises AssayError("model_unknown"), ProtocolError("card_invalid").
        """
        offered = await self.summaries()
        if name is None:
            found = max(offered, key=lambda one: one.nodes, default=None)
        else:
            found = next((m for m in offered if name in (m.name, m.model.hex())), None)
        if found is None:
            raise AssayError("model_unknown", f"no model {name!r} is offered")
        known = self._models.get(found.card)
        if known is None:
            known = self._models[found.card] = Model(found, await self._card(found))
        known.summary = found
        return known

    async def _card(self, summary: ModelSummary) -> ModelCard:
        path = self._folder and self._folder / f"{summary.card.hex()}.card"
        data = _read(path)
        if data is None or card_digest(data) != summary.card:
            data = await self._link.document("card", summary.model, CARD_BYTES_MAX)
            if card_digest(data) != summary.card:
                raise ProtocolError("card_invalid", "the card is not the one it is named as")
            _write(path, data)
        card = decode_card(data)
        if card.model != summary.model:
            raise ProtocolError("card_invalid", "the card is of another model")
        return card


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return None


def _write(path: Path | None, data: bytes) -> None:
    """Keep a card whole or not at all; a cache that cannot be written is only slower."""
    if path is None:
        return
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(data)
        os.replace(draft, path)
