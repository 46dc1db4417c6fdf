import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import SecretStr

from mastodon_assets.contract.messages import Message, encode
from mastodon_assets.ingest.policy.admission import AdmissionPolicy
from mastodon_assets.ingest.policy.pseudonyms import Pseudonyms
from mastodon_assets_tests.support.documents import account, status
from mastodon_assets_tests.support.handling import NOW, Handling

KEY = SecretStr("a key for tests only")
HASH = "[0-9a-f]{32}"


def hidden(
    document: dict[str, Any], *, instance: str = "two.example", key: SecretStr = KEY
) -> Message:
    return AdmissionPolicy(pseudonyms=Pseudonyms(key)).to_message(
        document, instance=instance, received_at=NOW, origin="stream"
    )


def mention(handle: str, **changes: Any) -> dict[str, Any]:
    name, _, domain = handle.partition("@")
    return {
        "id": "99",
        "username": name,
        "acct": handle,
        "url": f"https://{domain}/@{name}",
        **changes,
    }


def tag(handle: str) -> str:
    """What replaces a mention of `handle`."""
    return f"@{Pseudonyms(KEY).handle(handle).partition('@')[0]}"


def linked(url: str, name: str) -> str:
    return (
        f'<p><span class="h-card"><a href="{url}" class="u-url mention">@<span>{name}</span></a>'
        "</span> hello</p>"
    )


def test_names_become_hashes_and_there_is_no_html() -> None:
    message = hidden(status())

    for name in ("uri", "url", "user_id"):
        assert re.fullmatch(HASH, message[name])
    assert re.fullmatch(f"{HASH}@{HASH}", message["username"])
    assert len({message[name] for name in ("uri", "url", "user_id", "username")}) == 4
    assert message["content_html"] is None
    assert message["content"] == "Good morning"
    assert (message["instance"], message["id"]) == ("two.example", "1")
    encode(message)


def test_a_post_is_the_same_from_every_server_and_with_every_spelling_of_its_author() -> None:
    one = hidden(status("1", uri="https://one.example/1"), instance="one.example")
    two = hidden(
        status("77", uri="https://one.example/1", account=account(id="5", acct="Ada@ONE.example")),
        instance="two.example",
    )

    assert one["uri"] == two["uri"]
    assert one["username"] == two["username"]
    assert one["user_id"] != two["user_id"]


def test_accounts_of_a_server_share_its_part_and_nothing_else() -> None:
    ada, bob, other = (
        hidden(status(account=account(acct=acct)))["username"].split("@")
        for acct in ("ada@one.example", "bob@one.example", "ada@two.example")
    )

    assert ada[1] == bob[1] != other[1]
    assert len({ada[0], bob[0], other[0]}) == 3


def test_another_key_gives_other_hashes() -> None:
    one, other = hidden(status()), hidden(status(), key=SecretStr("another key for tests"))

    assert all(one[name] != other[name] for name in ("uri", "url", "username", "user_id"))


@pytest.mark.parametrize(
    ("content", "mentions", "text"),
    [
        (
            linked("https://one.example/@bob", "bob"),
            [mention("bob@one.example")],
            f"{tag('bob@one.example')} hello",
        ),
        # Two of one name, reported apart by their links.
        (
            linked("https://one.example/@bob", "bob") + linked("https://three.example/@bob", "bob"),
            [mention("bob@one.example"), mention("bob@three.example")],
            f"{tag('bob@one.example')} hello\n\n{tag('bob@three.example')} hello",
        ),
        # The address of a profile need not look like one.
        (
            linked("https://four.example/4711", "bob"),
            [mention("bob@four.example", url="https://four.example/4711")],
            f"{tag('bob@four.example')} hello",
        ),
        (
            linked("https://one.example/users/bob", "bob"),
            [],
            f"{tag('bob@one.example')} hello",
        ),
        # Of the server that was asked; its accounts come without a domain.
        ("<p>hi @bob</p>", [mention("bob", url=None)], f"hi {tag('bob@two.example')}"),
        ("<p>hi @BOB!</p>", [mention("bob@one.example")], f"hi {tag('bob@one.example')}!"),
        ("<p>hi @bob.</p>", [], f"hi {tag('bob@one.example')}."),
        ("<p>hi @bobさん</p>", [mention("bob@one.example")], f"hi {tag('bob@one.example')}さん"),
        ("<p>hi @bob@three.example, you</p>", [], f"hi {tag('bob@three.example')}, you"),
        ("<p>mail bob@three.example</p>", [], f"mail {tag('bob@three.example')}"),
        (
            "<p>see https://three.example/@bob/1234 now</p>",
            [],
            f"see {tag('bob@three.example')} now",
        ),
        (
            '<p><a href="https://three.example/@bob/1234"><span class="invisible">https://</span>'
            '<span class="ellipsis">three.example/@bob/1</span><span class="invisible">234</span>'
            "</a></p>",
            [],
            tag("bob@three.example"),
        ),
        # Nothing of the address is left, however much of it is known.
        (
            "<p>see https://three.example/@bob/1234</p>",
            [mention("bob@three.example")],
            f"see {tag('bob@three.example')}",
        ),
        (
            "<p>see https://web.three.example/@bob/1234</p>",
            [mention("bob@three.example", url="https://web.three.example/@bob")],
            f"see {tag('bob@three.example')}",
        ),
        ("<p>see three.example/users/bob</p>", [], f"see {tag('bob@three.example')}"),
        ("<p>https://three.example/%40bob</p>", [], tag("bob@three.example")),
        # What names nobody stays.
        ("<p>1 @ 2, he/she, a@ and and/or...</p>", [], "1 @ 2, he/she, a@ and and/or..."),
        (
            '<p><a href="https://three.example/news/today">news</a></p>',
            [mention("bob@one.example")],
            "news",
        ),
    ],
)
def test_a_mention_becomes_the_hash_of_the_full_handle(
    content: str, mentions: list[Any], text: str
) -> None:
    assert hidden(status(content=content, mentions=mentions))["content"] == text


def test_content_warnings_are_no_hiding_place() -> None:
    message = hidden(status(spoiler_text="for @bob", mentions=[mention("bob@one.example")]))

    assert message["spoiler_text"] == f"for {tag('bob@one.example')}"


NAMES = st.from_regex(r"[a-z][a-z0-9_]{7,11}", fullmatch=True).map(lambda name: f"zq{name}")
DOMAINS = st.sampled_from(["three.example", "xn--mnchen-3ya.example", "sub.four.example"])
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)


@st.composite
def _statuses(draw: st.DrawFn) -> tuple[dict[str, Any], list[str]]:
    """A status, and what must be nowhere in what becomes of it."""
    author, friend, stranger = draw(NAMES), draw(NAMES), draw(NAMES)
    home, away = draw(DOMAINS), draw(DOMAINS)
    status_id = draw(st.integers(10**15, 10**16))
    uri = f"https://{home}/users/{author}/statuses/{status_id}0"
    url = f"https://{home}/@{author}/{status_id}0"
    is_local = draw(st.booleans())
    profile = draw(st.sampled_from([f"https://{away}/@{friend}", f"https://{away}/users/{friend}"]))
    piece = st.one_of(
        TEXTS.map(_escaped),
        st.sampled_from(
            [
                f'<a href="{profile}" class="u-url mention">@<span>{friend}</span></a>',
                f'<a href="{profile}" class="mention">@<span>{friend}@{away}</span></a>',
                f'@<a href="{profile}">{friend}</a>',
                f"@{friend}",
                f"@{friend.upper()}@{away}",
                f"{stranger}@{away}",
                f"@{stranger}",
                profile,
                uri,
                url,
                f'<a href="{url}">{url[8:40]}…</a>',
                f"@{author}",
                f"{author}@{home}",
                f"https://{away}/web/@{stranger}@{home}",
            ]
        ),
    )
    # A name directly behind a letter would be part of a longer one.
    content = " ".join(draw(st.lists(piece, max_size=8)))
    document = status(
        "1",
        uri=uri,
        url=draw(st.sampled_from([url, None])),
        account=account(
            id=f"77{status_id}",
            username=author,
            acct=author if is_local else f"{author}@{home}",
            display_name=f"Display of {author}",
            url=f"https://{home}/@{author}",
            uri=f"https://{home}/users/{author}",
            avatar=f"https://{home}/{author}.png",
            note=f"I am {author}",
        ),
        content=f"<p>{content}</p>",
        spoiler_text=draw(st.sampled_from(["", f"about @{friend} and {stranger}@{home}"])),
        mentions=[mention(f"{friend}@{away}", url=profile, id=f"88{status_id}")],
        in_reply_to_account_id=f"88{status_id}",
    )
    if draw(st.booleans()):
        document[draw(st.sampled_from(["created_at", "favourites_count", "language"]))] = draw(
            st.sampled_from(["odd", -1, {}])
        )
    return document, [author, friend, stranger, str(status_id), f"77{status_id}"]


def _escaped(text: str) -> str:
    for character in "&<>":
        text = text.replace(character, f"&#{ord(character)};")
    # What would turn the text next to it into a name.
    return re.sub(r"[\w@%/.+-]", "", text)


@hypothesis_settings(max_examples=300)
@given(_statuses())
def test_no_name_uri_url_or_account_id_is_in_any_byte_for_kafka(
    drawn: tuple[dict[str, Any], list[str]],
) -> None:
    document, secrets = drawn
    handling = Handling(policy=AdmissionPolicy(pseudonyms=Pseudonyms(KEY)))
    handling.event("update", document)

    produced = json.dumps([handling.topics.messages, handling.topics.errors]).lower()

    assert handling.summary.upserts + handling.summary.errors.total() == 1
    assert not [secret for secret in secrets if secret.lower() in produced]


@given(st.text(max_size=60) | st.text("@a.b/:%40 -+", max_size=60))
def test_whatever_a_text_holds_can_be_hidden(text: str) -> None:
    hidden(status(content=text, spoiler_text=text, tags=[text or "x"]))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("unit", ["a", "@a", "a@", "a.", "a/", "a/a@", "://a/", "@@", "%40", "ä@."])
def test_a_long_text_does_not_hold_up_the_ingester(unit: str) -> None:
    hidden(status(content=unit * (200_000 // len(unit))))


def test_a_dead_letter_holds_no_payload_under_pseudonyms() -> None:
    handling = Handling(policy=AdmissionPolicy(pseudonyms=Pseudonyms(KEY)))
    handling.event("update", status(created_at="yesterday"))
    handling.event("update", status("2", favourites_count="many"))

    assert handling.summary.errors == {"not_normalised": 1, "contract": 1}
    assert handling.payloads() == [None, None]


def test_the_key_is_in_no_text_of_the_rules() -> None:
    rules = AdmissionPolicy(pseudonyms=Pseudonyms(KEY))

    assert KEY.get_secret_value() not in f"{rules} {rules!r} {vars(rules)}"
    assert str(rules).endswith("; pseudonyms")
