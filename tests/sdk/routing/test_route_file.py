"""The file of routes: what it means, and what is wrong with one."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay.routing.core.plans import Plan, Target
from assay.routing.file import read_routes, secret_of
from assay_protocol.errors import AssayError

UPSTREAM = '[upstream.u]\nurl = "http://127.0.0.1:1/v1"\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "routes.toml"
    path.write_text(text)
    return path


def test_a_file_of_everything(tmp_path: Path) -> None:
    text = """
        hedge_permille = 50
        [upstream.closed]
        url = "https://api.example.com/v1"
        key_env = "CLOSED"
        keys = ["alice"]
        price_in = 150
        price_out = 600
        [route."gpt-4o-mini"]
        network = ["a", "b"]
        upstream = "closed"
        upstream_when = ["no_node", "slow"]
        first_token_ms = 4000
        [route."*"]
        network = ["b"]
    """
    routes = read_routes(written(tmp_path, text))
    named = routes.plan("gpt-4o-mini")
    assert named.targets() == (Target("a"), Target("b"), Target("gpt-4o-mini", "closed"))
    assert routes.plan("else") == Plan(network=("else", "b"))
    assert routes.plan("b") == Plan(network=("b",))
    terms = routes.upstreams["closed"]
    assert (terms.admits("alice"), terms.admits("bob"), terms.admits("")) == (True, False, False)
    assert terms.price(1_000, 500) == 150 + 300
    assert terms.price(1, 0) == 1, "rounded up"
    assert secret_of(terms, {"CLOSED": "sk-1"}) == "sk-1"
    with pytest.raises(AssayError, match="CLOSED is not set"):
        secret_of(terms, {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[route.a]\nnetwork = []", "names nobody"),
        ("[route.a]\nnetwrk = ['b']", "did you mean 'network'"),
        ("[route.a]\nnetwork = ['']", "without a name"),
        ("[route.a]\nnetwork = 'b'", "list of strings"),
        ("route = 3", "table of tables"),
        ("[route]\na = 3", "not a table"),
        ("[route.a]\nupstream = 'u'\nupstream_when = ['slow']", "no upstream 'u'"),
        (UPSTREAM + "[route.a]\nupstream = 'u'", "upstream_when says when"),
        (UPSTREAM + "[route.a]\nupstream = 'u'\nupstream_when = ['often']", "not 'often'"),
        ("[route.a]\nnetwork = ['b']\nupstream_when = ['slow']", "without an upstream"),
        ("[route.a]\nnetwork = ['b']\nfirst_token_ms = -1", "first_token_ms"),
        ("hedge_permille = 1001", "hedge_permille"),
        ("plans = 3", "unknown key 'plans'"),
        ("[upstream.u]", "url is missing"),
        ("[upstream.u]\nurl = 'http://example.com/v1'", "in the clear"),
        ("[upstream.u]\nurl = 'https://me:secret@example.com'", "holds no key"),
        (UPSTREAM + "key = 'secret'", "unknown key 'key'"),
        (UPSTREAM + "key_env = 'A'\nkey_file = 'b'", "either"),
        (UPSTREAM + "first_token_ms = 0", "above 0"),
        ("[upstream.'a b']\nurl = 'https://example.com'", "not a name"),
        ("hedge_permille = ", "routes.toml"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(AssayError) as caught:
        read_routes(written(tmp_path, text))
    assert caught.value.code == "config_invalid"
    assert said in caught.value.message
    assert "secret" not in caught.value.message


def test_a_secret_in_a_file_must_be_private(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("sk-1\n")
    secret.chmod(0o644)
    terms = read_routes(written(tmp_path, UPSTREAM + f"key_file = '{secret}'")).upstreams["u"]
    with pytest.raises(AssayError, match="key_permissions"):
        secret_of(terms, {})
    secret.chmod(0o600)
    assert secret_of(terms, {}) == "sk-1"
    secret.write_text("\n")
    with pytest.raises(AssayError, match="config_invalid"):
        secret_of(terms, {})
