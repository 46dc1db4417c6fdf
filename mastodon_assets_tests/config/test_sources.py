"""What the settings name, and which token is shown to whom."""

from pathlib import Path
from typing import Any

import pytest

from mastodon_assets.config.servers import Server, servers_of
from mastodon_assets.config.settings import load_settings
from mastodon_assets.config.sources import PUBLIC, Source
from mastodon_assets.errors import SettingsError

ONE, TWO = "https://one.example", "https://two.example:8443"
BOTH = f"{ONE},{TWO}"
SECRET, OTHER = "s3cr3t-of-one", "s3cr3t-of-two"


def servers(**settings: Any) -> list[Server]:
    return servers_of(load_settings(_env_file=None, **settings))


def tokens(**settings: Any) -> dict[str, str | None]:
    return {
        server.address: None if server.token is None else server.token.get_secret_value()
        for server in servers(**settings)
    }


def refusal(**settings: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        servers(**settings)
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)
    assert OTHER not in str(caught.value)
    return str(caught.value)


def write_tokens(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_one_server_and_its_public_timeline_need_nothing_else() -> None:
    (server,) = servers(mastodon_api_base_url=ONE, mastodon_access_token=SECRET)
    assert (server.base_url, server.address, server.sources) == (ONE, "one.example", (PUBLIC,))
    assert tokens(mastodon_api_base_url=ONE, mastodon_access_token=SECRET) == {
        "one.example": SECRET
    }


def test_no_server_is_named() -> None:
    assert servers() == []


def test_every_server_has_the_sources_that_are_not_limited_to_another() -> None:
    found = servers(
        mastodon_api_base_url=BOTH,
        mastodon_sources="local,#Tea,one.example/remote,two.example:8443/hashtag:ＮＥＷＳ,local",
    )
    assert {server.address: server.sources for server in found} == {
        "one.example": (Source("local"), Source("hashtag", "tea"), Source("remote")),
        "two.example:8443": (
            Source("local"),
            Source("hashtag", "tea"),
            Source("hashtag", "news"),
        ),
    }


@pytest.mark.parametrize(
    "text",
    ["home", "public, local", "", "public,", "#", "hashtag:", "#two words", "/local", "#a/b"],
)
def test_a_source_that_is_none_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(_env_file=None, mastodon_sources=text)
    reported = str(caught.value)
    assert reported.startswith(
        f"MASTODON_SOURCES={text!r}: allowed: a comma-separated list of public, local"
    )


def test_a_source_of_a_server_that_is_not_named_is_refused() -> None:
    reported = refusal(mastodon_api_base_url=ONE, mastodon_sources="public,three.example/local")
    assert reported == (
        "MASTODON_SOURCES: three.example is not in MASTODON_API_BASE_URL; allowed: one.example"
    )


def test_a_server_without_a_source_is_refused() -> None:
    reported = refusal(mastodon_api_base_url=BOTH, mastodon_sources="one.example/local")
    assert reported.startswith("MASTODON_SOURCES names no source of two.example:8443")


def test_a_server_gets_its_own_token_and_no_other() -> None:
    both = f"one.example={SECRET},TWO.example:8443={OTHER}"
    assert tokens(mastodon_api_base_url=BOTH, mastodon_access_token=both) == {
        "one.example": SECRET,
        "two.example:8443": OTHER,
    }
    assert tokens(mastodon_api_base_url=ONE, mastodon_access_token=f"one.example={SECRET}") == {
        "one.example": SECRET
    }


@pytest.mark.parametrize(
    "text",
    [SECRET, f"one.example={SECRET},{OTHER}", f"three.example={SECRET}", "one.example=", "="],
)
def test_a_token_that_belongs_to_none_of_several_servers_is_refused(text: str) -> None:
    reported = refusal(mastodon_api_base_url=BOTH, mastodon_access_token=text)
    assert reported.startswith("MASTODON_ACCESS_TOKEN=***: allowed: one token; for several servers")


def test_a_file_holds_the_tokens_and_the_variable_wins(tmp_path: Path) -> None:
    path = write_tokens(
        tmp_path / "tokens", f"# ours\n\none.example {OTHER}\ntwo.example:8443\t{OTHER}\n"
    )
    assert tokens(
        mastodon_api_base_url=BOTH,
        mastodon_access_tokens_file=path,
        mastodon_access_token=f"one.example={SECRET}",
    ) == {"one.example": SECRET, "two.example:8443": OTHER}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_file_of_tokens_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = write_tokens(tmp_path / "tokens", f"one.example {SECRET}", mode)
    reported = refusal(mastodon_api_base_url=ONE, mastodon_access_tokens_file=path)
    assert reported.endswith(f"other users can read it; run: chmod 600 {path}")


def test_a_damaged_file_of_tokens_is_reported_without_its_lines(tmp_path: Path) -> None:
    path = write_tokens(tmp_path / "tokens", f"one.example {SECRET}\n{OTHER}\n")
    reported = refusal(mastodon_api_base_url=ONE, mastodon_access_tokens_file=path)
    assert reported.endswith("line 2: allowed: a host, a space and its token")
    path.write_bytes(b"\xff\xfe")
    assert "not UTF-8" in refusal(mastodon_api_base_url=ONE, mastodon_access_tokens_file=path)
    missing = tmp_path / "missing"
    reported = refusal(mastodon_api_base_url=ONE, mastodon_access_tokens_file=missing)
    assert "No such file" in reported


@pytest.mark.parametrize(
    ("source", "name", "stream", "timeline"),
    [
        (PUBLIC, "public", "public", "public"),
        (Source("local"), "local", "public/local", "public?local=true"),
        (Source("remote"), "remote", "public/remote", "public?remote=true"),
        (Source("hashtag", "tee"), "hashtag:tee", "hashtag?tag=tee", "tag/tee"),
        (Source("hashtag", "ü"), "hashtag:ü", "hashtag?tag=%C3%BC", "tag/%C3%BC"),
    ],
)
def test_a_source_has_a_name_a_stream_and_a_timeline(
    source: Source, name: str, stream: str, timeline: str
) -> None:
    assert (source.name, source.stream_path, source.timeline_path) == (name, stream, timeline)
