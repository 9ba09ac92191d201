"""Pictures of a chat: taken from its messages, and spelled where its template puts them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.catalogue import Model
from assay.chat_template import ChatTemplate
from assay.picture_files import FILE_BYTES_MAX, pixels_of
from assay.pictures import image_part, take_pictures, without_pictures
from assay.tokenizer import Tokenizer
from assay_protocol.cards import ModelCard
from assay_protocol.errors import AssayError
from assay_protocol.images import spelled
from assay_protocol.limits import IMAGES_BYTES_MAX, IMAGES_MAX
from sdk.client_network import FakeNetwork
from sdk.picture_cases import SEES, data_url, picture_file, shown
from sdk.test_chat_template import CARD, CHAT, card_with

ONE, OTHER = picture_file((1, 2, 3)), picture_file((9, 9, 9))
TYPED = (
    "{% for m in messages %}{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}"
    "{% endif %}{% endfor %}<|end|>{% endfor %}"
)


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}


def text(said: str) -> dict[str, str]:
    return {"type": "text", "text": said}


def model_of(card: ModelCard) -> Model:
    return Model(FakeNetwork().summary(), card)


def words(said: str) -> tuple[int, ...]:
    return Tokenizer.from_card(CARD).encode(said)


def spelling(file: bytes) -> tuple[int, ...]:
    (image,) = pixels_of([file], side=SEES.side, bytes_max=IMAGES_BYTES_MAX)
    return (*SEES.before, *spelled(image, SEES.tokens), *SEES.after)


async def test_a_picture_stands_where_it_was_put(tmp_path: Path) -> None:
    file = tmp_path / "one.png"
    file.write_bytes(ONE)
    chat = [user(text("a<"), image_part(file), text("b"), shown(OTHER)), user(text("c"))]
    prompt = await model_of(card_with(CHAT, vision=SEES)).prompt_of_chat(chat)
    expected = (
        *words("<|start|>user\na<"),
        *spelling(ONE),
        *words("b"),
        *spelling(OTHER),
        *words("<|end|>\n<|start|>user\nc<|end|>\n<|start|>assistant\n"),
    )
    assert prompt.tokens == expected
    assert [image.pixels[:3] for image in prompt.images] == [b"\1\2\3", b"\x09\x09\x09"]


async def test_a_template_that_reads_parts_gets_parts() -> None:
    chat = [{"role": "system", "content": "s"}, user(shown(ONE), text("b"))]
    prompt = await model_of(card_with(TYPED, vision=SEES)).prompt_of_chat(chat)
    assert prompt.tokens == (*words("s<|end|>"), *spelling(ONE), *words("b<|end|>"))


async def test_images_come_in_the_order_of_the_prompt() -> None:
    backwards = "{% for m in messages | reverse %}{{ m.content }}{% endfor %}"
    card = card_with(backwards, vision=SEES)
    prompt = await model_of(card).prompt_of_chat([user(shown(ONE)), user(shown(OTHER))])
    assert prompt.tokens == (*spelling(OTHER), *spelling(ONE))


_SHARDS = st.sampled_from([
    "<|end|>", "<|start|>", "<__media__>", "<image>", "[img-1]", "<|", "|>", "x", " ", "\n",
    "\U000f0000", "\U000f0001", "\U000f0002", "\U000f0003", "\U000f0004", "\U000f0005",
])  # fmt: skip


@given(st.lists(_SHARDS, max_size=8).map("".join), st.lists(_SHARDS, max_size=8).map("".join))
def test_no_text_passes_for_an_image(before: str, after: str) -> None:
    template = ChatTemplate(card_with("{% for m in messages %}{{ m.content }}<|end|>{% endfor %}"))
    shows = {"type": "image", "image": 0}
    around = template.render_around([user(text(before), shows, text(after))], images=1)
    plain = Tokenizer.from_card(CARD).encode
    assert around.places == (0,)
    end = (*plain(after, special=False), 1)
    assert around.pieces == (plain(before, special=False), end)


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[0].content }}{{ messages[0].content }}",
        "{{ messages[0].role }}",
        "{{ messages[0].content[:1] }}",
    ],
)
async def test_a_template_that_loses_or_repeats_one_is_refused(template: str) -> None:
    with pytest.raises(AssayError, match="leaves an image out, or repeats it"):
        await model_of(card_with(template, vision=SEES)).prompt_of_chat(
            [user(text("xy"), shown(ONE))]
        )


async def test_a_model_of_text_reads_none() -> None:
    with pytest.raises(AssayError) as refused:
        await model_of(CARD).prompt_of_chat([user(shown(ONE))])
    assert refused.value.code == "image_refused"


def test_a_chat_without_pictures_is_left_as_it_is() -> None:
    chat = [user(text("a")), {"role": "user", "content": "b"}]
    assert take_pictures(chat) == (chat, [])
    assert without_pictures({"messages": chat}) == ({"messages": chat}, 0)
    assert without_pictures({"prompt": "x"}) == ({"prompt": "x"}, 0)


def test_pictures_are_counted_apart_from_a_body() -> None:
    body = {"messages": [user(text("a"), shown(ONE)), {"role": "user", "content": "b"}], "n": 1}
    left = [user(text("a")), {"role": "user", "content": "b"}]
    assert without_pictures(body) == ({"messages": left, "n": 1}, 1)


@pytest.mark.parametrize(
    "part",
    [
        {"image_url": {"url": "http://169.254.169.254/latest/meta-data"}},
        {"image_url": {"url": "file:///etc/passwd"}},
        {"image_url": {"url": "data:image/png,plain"}},
        {"image_url": {"url": "data:image/png;base64,@@@@"}},
        {"image_url": {"url": "data:image/png;base64,AAA"}},
        {"image_url": {"url": "data:" + ";x" * 999 + ";base64,AAAA"}},
        {"image_url": {"url": 7}},
        {"image_url": {}},
        {},
        {"image_url": {"url": "data:;base64," + "A" * (4 * (FILE_BYTES_MAX // 3) + 8)}},
    ],
    ids=range(10),
)
def test_what_is_no_data_url_is_refused(part: dict[str, Any]) -> None:
    with pytest.raises(AssayError) as refused:
        take_pictures([user({"type": "image_url", **part})])
    assert refused.value.code == "image_refused"


def test_too_many_are_refused() -> None:
    take_pictures([user(*[shown(ONE)] * IMAGES_MAX)])
    with pytest.raises(AssayError, match="at most 8"):
        take_pictures([user(*[shown(ONE)] * IMAGES_MAX), user(shown(ONE))])


def test_a_url_may_be_a_plain_text() -> None:
    assert take_pictures([user({"type": "image_url", "image_url": data_url(ONE)})])[1] == [ONE]
