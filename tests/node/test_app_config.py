"""Settings: three sources, one order, and no misspelt key goes unnoticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from assay_node.config import Settings, load_settings
from assay_node.coordinator import parse_coordinator
from assay_protocol.errors import AssayError

KEY = "03" * 32


def test_flags_win_over_environment_and_environment_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('slots = 1\nthreads = 1\ncontext = 64\nlisten = ["/memory/1"]\n')
    environment = {"ASSAY_NODE_THREADS": "2", "ASSAY_NODE_CONTEXT": "128", "HOME": "/"}
    settings = load_settings(file, environment, {"context": 256})
    assert (settings.slots, settings.threads, settings.context) == (1, 2, 256)
    assert settings.listen == ("/memory/1",)


def test_environment_values_are_read_by_their_type() -> None:
    environment = {
        "ASSAY_NODE_LISTEN": "/memory/1,/memory/2",
        "ASSAY_NODE_FETCH_CARD": "true",
        "ASSAY_NODE_CONFIG": "elsewhere",
    }
    settings = load_settings(None, environment, {})
    assert settings.listen == ("/memory/1", "/memory/2")
    assert settings.fetch_card


def test_several_models_are_several_settings_of_one(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('model = "a.gguf"\nfetch_card = true\nmodels = ["b.card", "c.card=c=1.gguf"]\n')
    settings = load_settings(file, {}, {"memory_gib": 2})
    told = [(one.card, one.model, one.fetch_card, one.models) for one in settings.each()]
    assert told == [
        ("", "a.gguf", True, ()),
        ("b.card", "", False, ()),
        ("c.card", "c=1.gguf", False, ()),
    ]
    assert {one.memory_bytes for one in settings.each()} == {2 << 30}
    alone = load_settings(None, {"ASSAY_NODE_MODELS": "b.card,c.card"}, {})
    assert [one.card for one in alone.each()] == ["b.card", "c.card"]
    assert load_settings(None, {}, {"card": "a.card"}).each()[0].card == "a.card"


@pytest.mark.parametrize(
    ("file", "environment", "said"),
    [
        ("slot = 1", {}, "did you mean 'slots'"),
        ("slots = '1'", {}, "slots must be a int"),
        ("slots = true", {}, "slots must be a int"),
        ("slots = 0", {}, "slots must be in [1, 4096]"),
        ("listen = []", {}, "listen needs an address"),
        ("slots =", {}, "node.toml"),
        ("engine = 'magic'", {}, "llama, scripted"),
        ("operator = 'ab'", {}, "64 hexadecimal digits"),
        ("models = 'a.card'", {}, "models must be a list"),
        ("models = ['=a.gguf']", {}, "models must be CARD[=FILE]"),
        (f"models = {['a.card'] * 17}", {}, "a node serves 16 models"),
        ("model = 'a.gguf'\nmodels = ['b.card']\nengine = 'openai'", {}, "serves one model"),
        ("models = ['b.card']\nengine = 'scripted'", {}, "scripted serves one model"),
        ("model = 'a.gguf'\nmemory_gb = 4", {}, "did you mean 'memory_gib'"),
        ("", {"ASSAY_NODE_TREADS": "1"}, "did you mean 'threads'"),
        ("", {"ASSAY_NODE_THREADS": "one"}, "must be a number"),
        ("", {"ASSAY_NODE_FETCH_CARD": "perhaps"}, "must be true or false"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, file: str, environment: dict[str, str], said: str
) -> None:
    path = tmp_path / "node.toml"
    path.write_text(file)
    with pytest.raises(AssayError) as caught:
        load_settings(path, environment, {})
    assert caught.value.code == "config_invalid"
    assert said in caught.value.message


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssayError, match="config_invalid"):
        load_settings(tmp_path / "none.toml", {}, {})


def test_the_data_folder_is_the_platforms_unless_named() -> None:
    assert Settings(data_dir="/somewhere").directory == Path("/somewhere")
    assert Settings().directory.parts[-2:] == ("assay", "node")


def test_a_coordinator_is_named_by_its_key() -> None:
    from assay_network.identity import peer_text

    key = bytes.fromhex(KEY)
    plain = parse_coordinator(f"{KEY}@/ip4/127.0.0.1/tcp/1")
    assert (plain.key, plain.addresses) == (key, ("/ip4/127.0.0.1/tcp/1",))
    address = f"/ip4/127.0.0.1/tcp/1/p2p/{peer_text(key)}"
    assert parse_coordinator(address).key == key


@pytest.mark.parametrize("text", ["", "/ip4/127.0.0.1/tcp/1", "ab@/x", "zz@/x", "/p2p/nonsense"])
def test_a_coordinator_without_a_key_is_refused(text: Any) -> None:
    with pytest.raises(AssayError) as caught:
        parse_coordinator(text)
    assert caught.value.code == "config_invalid"


@pytest.mark.parametrize(
    "url",
    ["", "localhost:8080", "ftp://x", "http://", "http://u:p@x", "http://x?a=b", "http://x:99999"],
)
def test_another_server_has_a_plain_address(url: str) -> None:
    with pytest.raises(AssayError, match="engine_url"):
        Settings(engine="openai", engine_url=url)
    assert Settings(engine="openai", engine_url="http://127.0.0.1:8080").engine_url
