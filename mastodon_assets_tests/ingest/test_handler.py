import json
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from mastodon_assets.ingest import handler
from mastodon_assets.ingest.handler import SuppressedServerError
from mastodon_assets.ingest.policy.admission import AdmissionPolicy
from mastodon_assets.ingest.policy.filters import Filters
from mastodon_assets.ingest.policy.pseudonyms import Pseudonyms
from mastodon_assets.ingest.stored_posts import PostAlias
from mastodon_assets.warehouse.suppression_list import (
    Kind,
    SuppressionKeyError,
    SuppressionList,
    entry_hash,
)
from mastodon_assets_tests.support.documents import account, status
from mastodon_assets_tests.support.handling import NOW, Handling


def test_updates_edits_and_deletes_are_published() -> None:
    handling = Handling()

    assert handling.event("update", status("1")) == "1"
    assert handling.event("status.update", status("1", edited_at="2026-11-20T12:00:00Z")) is None
    assert handling.event("delete", "1\n") is None

    assert handling.topics.kinds() == [("upsert", "1"), ("upsert", "1"), ("delete", "1")]
    assert {message["origin"] for message in handling.topics.messages} == {"stream"}
    assert (handling.summary.received, handling.summary.upserts, handling.summary.deletes) == (
        3,
        2,
        1,
    )


def test_posts_of_an_earlier_run_are_not_published_again_but_their_edits_and_deletes_are() -> None:
    handling = Handling()
    edited = "2026-11-20T12:00:00.5Z"
    handling.handler.remember("1", None)
    handling.handler.remember("2", datetime.fromisoformat(edited))
    handling.handler.remember("3", None)

    for document in (
        status("1"),
        status("2", edited_at=edited),
        status("2", edited_at="2026-11-20T13:00:00Z"),
        status("3", visibility="private"),
    ):
        handling.listed(document)

    assert handling.topics.kinds() == [("upsert", "2"), ("delete", "3")]
    assert handling.summary.duplicates == 2
    assert handling.handler.published_ids(10) == ["2", "1"]


def test_a_post_whose_author_refuses_again_is_deleted_again() -> None:
    handling = Handling()
    refusing = status(account=account(noindex=True))
    for document in (refusing, refusing, status(), refusing, refusing):
        handling.listed(document)

    assert handling.topics.kinds() == [("upsert", "1"), ("delete", "1")]
    assert handling.summary.withheld == {"noindex": 2}
    assert handling.summary.duplicates == 2


def test_a_delete_from_stream_and_walk_is_published_once() -> None:
    handling = Handling()
    for status_id in ("1", "2"):
        handling.event("update", status(status_id))
    handling.event("delete", "1")
    handling.handler.handle_gone("1", NOW)
    handling.handler.handle_gone("2", NOW)

    assert handling.topics.kinds()[2:] == [("delete", "1"), ("delete", "2")]
    assert (handling.summary.received, handling.summary.duplicates) == (5, 1)


def test_the_mock_servers_name_of_an_edit_is_known() -> None:
    handling = Handling()
    handling.event("status_update", status(visibility="private"))

    assert handling.topics.kinds() == [("delete", "1")]


@pytest.mark.parametrize(
    ("instance", "origins"),
    [("one.example", ["stream", "backfill"]), ("simulator.example", ["simulator", "simulator"])],
)
def test_a_message_says_where_it_came_from(instance: str, origins: list[str]) -> None:
    handling = Handling(instance=instance)
    handling.event("update", status("1"))
    handling.listed(status("2"))

    assert [message["origin"] for message in handling.topics.messages] == origins


@pytest.mark.parametrize("name", ["filters_changed", "notification", "announcement", "", "message"])
def test_other_events_are_counted_and_not_read(name: str) -> None:
    handling = Handling()
    handling.event(name, "undefined")

    assert handling.summary.ignored == 1
    assert handling.summary.received == 0
    assert handling.topics.errors == []


@pytest.mark.parametrize("data", ["", "undefined", "{", "NaN", "[" * 100_000, "9" * 5000 + "x"])
def test_only_the_reason_is_kept_of_a_payload_that_is_not_json(data: str) -> None:
    handling = Handling()
    handling.event("update", data)

    assert handling.summary.errors == {"not_json": 1}
    assert handling.payloads() == [None]


@pytest.mark.parametrize("document", [None, 5, [], {}, status(account=None)])
def test_only_the_reason_is_kept_if_consent_cannot_be_read(document: Any) -> None:
    handling = Handling()
    handling.event("update", document)
    handling.listed(document)

    assert handling.payloads()[0] is None
    assert {error["reason"] for error in handling.topics.errors} == {"unreadable"}
    assert handling.topics.messages == []
    assert "Good morning" not in str(handling.topics.errors)


def test_a_post_that_consents_but_cannot_be_read_is_kept_whole() -> None:
    handling = Handling()
    text = json.dumps(status(created_at="yesterday"))
    handling.event("update", text)
    handling.event("update", status("2", favourites_count="many"))
    handling.listed(status("3", uri=None, url=None, created_at=NOW))

    assert handling.summary.errors == {"not_normalised": 2, "contract": 1}
    assert handling.payloads()[0] == text
    assert json.loads(handling.payloads()[1])["id"] == "2"
    assert json.loads(handling.payloads()[2])["created_at"] == "2026-11-20T12:00:00.000000Z"


def test_a_delete_without_an_id_leaves_its_reason() -> None:
    handling = Handling()
    handling.event("delete", "")
    handling.event("delete", json.dumps(status()) * 10)

    assert handling.summary.errors == {"bad_delete": 2}
    assert handling.payloads() == [None, None]
    assert handling.topics.messages == []


def test_a_withheld_post_leaves_nothing_behind() -> None:
    handling = Handling()
    handling.event("update", status("1", visibility="unlisted"))
    handling.listed(status("2", account=account(note="#nobot")))

    assert handling.summary.withheld == {"not_public": 1, "nobot": 1}
    assert handling.topics.messages == []
    assert handling.topics.errors == []


def test_an_edit_that_is_withheld_deletes_the_post() -> None:
    handling = Handling()
    handling.event("status.update", status("1", visibility="private"))
    handling.event("status.update", status("2", account=account(noindex=True)))
    handling.event("status.update", status("3", account=None))
    handling.event("status.update", status(None, account=None))

    assert handling.topics.kinds() == [("delete", "1"), ("delete", "2"), ("delete", "3")]
    assert handling.summary.withheld == {"not_public": 1, "noindex": 1, "unreadable": 2}


def test_a_published_post_that_no_longer_passes_is_deleted() -> None:
    handling = Handling()
    handling.event("update", status("1"))
    handling.listed(status("1", account=account(note="#nobot")))

    assert handling.topics.kinds() == [("upsert", "1"), ("delete", "1")]


def test_an_account_that_refuses_waits_until_its_stored_posts_are_deleted() -> None:
    handling = Handling()
    refusing, other = account(noindex=True), account(acct="bob@two.example")
    handling.event("update", status("1", account=refusing))
    handling.listed(status("2", account=refusing))
    handling.event("update", status("3", account=other, visibility="private"))
    handling.event("update", status("4", account=account(acct="eve@two.example", note=5)))
    assert handling.handler.refusing_accounts() == ["ada@one.example"]

    posts = [PostAlias("one.example", "8"), PostAlias("two.example", "9")]
    handling.handler.handle_refused(["ada@one.example"], posts, NOW)

    deletes = [(each["op"], each["instance"], each["id"]) for each in handling.topics.messages]
    assert deletes == [("delete", "one.example", "8"), ("delete", "two.example", "9")]
    assert handling.summary.deletes == 2
    handling.listed(status("5", account=refusing))
    assert handling.handler.refusing_accounts() == []
    # Posts that are published after a new consent need a new look if it ends.
    handling.listed(status("6"))
    handling.listed(status("7", account=refusing))
    assert handling.handler.refusing_accounts() == ["ada@one.example"]


def test_stored_posts_of_an_account_that_refuses_are_looked_for_again_at_intervals_that_double(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its posts may come to the tables hours later, if the stream was not running."""
    minutes, looks = 0, []
    monkeypatch.setattr("time.monotonic", lambda: 60.0 * minutes)
    handling = Handling()
    handling.event("update", status("1", account=account(noindex=True)))
    for minutes in range(200):
        if accounts := handling.handler.refusing_accounts():
            looks.append(minutes)
            handling.handler.handle_refused(accounts, [], NOW)
    assert looks == [0, 1, 3, 7, 15, 31, 63, 123, 183]


def test_an_account_that_refuses_is_named_as_its_stored_posts_are() -> None:
    pseudonyms = Pseudonyms(SecretStr("a key for tests only"))
    handling = Handling(policy=AdmissionPolicy(pseudonyms=pseudonyms))
    handling.listed(status("1", account=account(note="#nobot")))
    (name,) = handling.handler.refusing_accounts()
    handling.listed(status("2"))
    assert name == handling.topics.messages[0]["username"]
    assert name.endswith(f"@{handling.handler.own_domain}")


def test_a_post_from_stream_and_timeline_is_published_once() -> None:
    handling = Handling()
    edited = {"edited_at": "2026-11-20T12:00:00.000Z"}
    assert handling.event("update", status("1")) == "1"
    handling.listed(status("1", created_at=NOW))
    handling.event("status.update", status("1", **edited))
    handling.listed(status("1", edited_at=NOW))
    handling.event("update", status("1"))

    assert len(handling.topics.messages) == 2
    assert handling.summary.duplicates == 3


def test_a_withheld_post_from_both_counts_once() -> None:
    handling = Handling()
    handling.event("update", status("1", visibility="unlisted"))
    handling.listed(status("1", visibility="unlisted"))

    assert handling.summary.withheld == {"not_public": 1}
    assert handling.summary.duplicates == 1


def test_old_posts_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "_REMEMBERED_POSTS", 2)
    handling = Handling()
    for status_id in ("1", "2", "3", "1", "3"):
        handling.event("update", status(status_id))

    assert handling.topics.kinds() == [("upsert", each) for each in ("1", "2", "3", "1")]


def test_opt_in_is_passed_on() -> None:
    handling = Handling(policy=AdmissionPolicy("opt-in"))
    handling.event("update", status(account=account(indexable=False)))

    assert handling.summary.withheld == {"not_indexable": 1}


GERMAN = AdmissionPolicy(filters=Filters(languages=frozenset({"de"})))


def test_a_dropped_post_leaves_nothing_behind_but_its_rule() -> None:
    handling = Handling(policy=GERMAN)
    handling.event("update", status("1", language="de"))
    handling.event("update", status("2", language="en"))
    handling.listed(status("3", language=None))

    assert handling.topics.kinds() == [("upsert", "1")]
    assert handling.summary.dropped == {"language": 2}
    assert handling.summary.received == 3
    assert handling.topics.errors == []


def test_consent_is_decided_before_filters() -> None:
    handling = Handling(policy=GERMAN)
    handling.event("update", status("1", visibility="private", language="en"))

    assert handling.summary.withheld == {"not_public": 1}
    assert handling.summary.dropped == {}


def test_a_post_that_no_longer_passes_the_filters_is_deleted() -> None:
    handling = Handling(policy=GERMAN)
    handling.event("update", status("1", language="de"))
    handling.listed(status("1", language="en"))
    handling.event("status.update", status("2", language="en"))

    assert handling.topics.kinds() == [("upsert", "1"), ("delete", "1"), ("delete", "2")]
    assert handling.summary.dropped == {"language": 2}
    assert handling.summary.deletes == 2


def suppression_list(kind: Kind, name: str) -> SuppressionList:
    key = SecretStr("a key for tests only")
    return SuppressionList(key, frozenset({entry_hash(key, kind, name)}))


@pytest.mark.parametrize(
    "listed",
    [
        suppression_list("account", "ada@one.example"),
        suppression_list("account", "@ADA@One.Example"),
        suppression_list("server", "one.example"),
    ],
)
def test_nothing_is_left_of_somebody_on_the_suppression_list(listed: SuppressionList) -> None:
    handling = Handling(instance="two.example", suppression_list=lambda: listed)
    handling.event("update", status("1"))
    handling.event("status.update", status("1", edited_at="2026-11-20T12:00:00Z"))
    handling.event("update", status("2", created_at="no time, which would be a dead letter"))
    handling.listed(status("3"))
    other = account(acct="ada@three.example")
    handling.event("update", status("4", account=other, uri="https://three.example/4"))
    handling.event("delete", "3")

    assert handling.summary.withheld == {"withdrawn": 4}
    assert handling.topics.kinds() == [("upsert", "4"), ("delete", "3")]
    assert handling.topics.errors == []


def test_a_suppression_counts_from_the_moment_it_is_known() -> None:
    lists = [SuppressionList()]
    handling = Handling(suppression_list=lambda: lists[-1])
    handling.event("update", status("1"))
    lists.append(suppression_list("account", "ada@one.example"))
    handling.event("update", status("2"))

    assert handling.topics.kinds() == [("upsert", "1")]


def test_a_list_that_cannot_be_read_ends_the_run() -> None:
    def read() -> SuppressionList:
        if taken:
            raise SuppressionKeyError("another key")
        return SuppressionList()

    taken: list[str] = []
    handling = Handling(suppression_list=read)
    taken.append("one")

    with pytest.raises(SuppressionKeyError):
        handling.event("update", status("1"))


def test_a_suppressed_server_is_not_read() -> None:
    with pytest.raises(SuppressedServerError, match=r"^one\.example is on the suppression list"):
        Handling(suppression_list=lambda: suppression_list("server", "ONE.example"))


def test_no_payload_is_kept_if_the_author_is_unknown() -> None:
    handling = Handling()
    handling.event("update", status(account=account(acct=None, username=None)))

    assert handling.summary.errors == {"not_normalised": 1}
    assert handling.payloads() == [None]


def test_the_summary_says_under_which_rules_it_was_counted() -> None:
    assert (
        Handling(policy=AdmissionPolicy("opt-in")).summary.rules
        == "consent opt-in (version 3); filters none"
    )


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False)
    | st.text(max_size=5),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values),
    max_leaves=4,
)
# What is deeper than Python's stack is no JSON to it.
DEEP = st.integers(1, 600).map(lambda depth: json.loads("[" * depth + "]" * depth))
LONG = st.sampled_from(["x", "é", "<p>", "@a", "\ud83d", "\x00", "&amp;", "<a href='x'>"]).map(
    lambda unit: unit * 20_000
)
RULES = st.builds(
    AdmissionPolicy,
    st.sampled_from(["respect", "opt-in"]),
    st.builds(
        Filters,
        languages=st.sampled_from([frozenset[str](), frozenset({"en"})]),
        words=st.sampled_from([frozenset[str](), frozenset({"good morning"})]),
        tags=st.sampled_from([frozenset[str](), frozenset({"tea"})]),
        drops_bots=st.booleans(),
        drops_replies=st.booleans(),
    ),
    st.sampled_from([None, Pseudonyms(SecretStr("a key for tests only"))]),
)


@given(
    st.sampled_from(["update", "status.update"]),
    st.dictionaries(
        st.sampled_from([*sorted(status()), "mentions"]), VALUES | DEEP | LONG, max_size=3
    ),
    st.dictionaries(st.sampled_from(sorted(account())), VALUES | DEEP | LONG, max_size=2),
    RULES,
)
def test_whatever_a_status_holds_ends_as_a_message_a_dead_letter_or_a_count(
    name: str, changes: dict[str, Any], account_changes: dict[str, Any], rules: AdmissionPolicy
) -> None:
    handling = Handling(policy=rules)
    handling.event(name, {**status(account=account(**account_changes)), **changes})
    summary = handling.summary

    assert summary.received == 1
    assert (
        summary.upserts
        + summary.withheld.total()
        + summary.dropped.total()
        + summary.errors.total()
        == 1
    )
    assert summary.upserts == sum(message["op"] == "upsert" for message in handling.topics.messages)
    assert "unexpected" not in summary.errors
    assert len(handling.topics.errors) == summary.errors.total() + summary.withheld["unreadable"]


@given(VALUES | DEEP | LONG, st.sampled_from(["update", "status.update", "delete"]))
def test_whatever_a_server_sends_as_a_status_is_accounted_for(document: Any, name: str) -> None:
    handling = Handling()
    handling.event(name, document)
    handling.listed(document)

    assert handling.summary.received == 2
    assert len(handling.topics.errors) + handling.summary.deletes == 2
