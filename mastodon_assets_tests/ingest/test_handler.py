import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from mastodon_assets.contract.messages import Message, encode
from mastodon_assets.ingest import handler as intake_module
from mastodon_assets.ingest.api.event_stream import StreamEvent
from mastodon_assets.ingest.handler import EventHandler, SuppressedServerError
from mastodon_assets.ingest.policy.admission import AdmissionPolicy
from mastodon_assets.ingest.policy.filters import Filters
from mastodon_assets.ingest.policy.pseudonyms import Pseudonyms
from mastodon_assets.warehouse.suppression_list import (
    Kind,
    SuppressionKeyError,
    SuppressionList,
    entry_hash,
)
from mastodon_assets_tests.support.documents import account, status

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


class Topics:
    """What a publisher got; the contract is checked as it does."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.errors: list[dict[str, Any]] = []

    def publish(self, message: Message) -> None:
        self.messages.append(json.loads(encode(message)))

    def publish_error(self, **error: Any) -> None:
        self.errors.append(error)

    def kinds(self) -> list[tuple[str, str]]:
        return [(message["op"], message["id"]) for message in self.messages]


class Taking:
    """An intake and what came out of it."""

    def __init__(
        self,
        *,
        instance: str = "one.example",
        rules: AdmissionPolicy | None = None,
        suppression_list: Callable[[], SuppressionList] = SuppressionList,
    ) -> None:
        self.topics = Topics()
        self.handler = EventHandler(
            self.topics,  # type: ignore[arg-type]
            instance=instance,
            rules=rules or AdmissionPolicy(),
            suppression_list=suppression_list,
        )
        self.summary = self.handler.summary

    def event(self, name: str, data: Any) -> str | None:
        text = data if isinstance(data, str) else json.dumps(data)
        return self.handler.handle_event(StreamEvent(name, text, NOW))

    def listed(self, document: Any) -> None:
        self.handler.handle_listed(document, NOW)

    def payloads(self) -> list[Any]:
        return [error["payload"] for error in self.topics.errors]


def test_updates_edits_and_deletes_are_published() -> None:
    taking = Taking()

    assert taking.event("update", status("1")) == "1"
    assert taking.event("status.update", status("1", edited_at="2026-11-20T12:00:00Z")) is None
    assert taking.event("delete", "1\n") is None

    assert taking.topics.kinds() == [("upsert", "1"), ("upsert", "1"), ("delete", "1")]
    assert {message["origin"] for message in taking.topics.messages} == {"stream"}
    assert (taking.summary.received, taking.summary.upserts, taking.summary.deletes) == (3, 2, 1)


def test_what_an_earlier_run_has_published_is_not_published_again_but_its_edits_and_end_are() -> (
    None
):
    taking = Taking()
    edited = "2026-11-20T12:00:00.5Z"
    taking.handler.remember("1", None)
    taking.handler.remember("2", datetime.fromisoformat(edited))
    taking.handler.remember("3", None)

    for document in (
        status("1"),
        status("2", edited_at=edited),
        status("2", edited_at="2026-11-20T13:00:00Z"),
        status("3", visibility="private"),
    ):
        taking.listed(document)

    assert taking.topics.kinds() == [("upsert", "2"), ("delete", "3")]
    assert taking.summary.duplicates == 2
    assert taking.handler.published_ids(10) == ["2", "1"]


def test_a_delete_that_was_told_and_looked_for_is_published_once() -> None:
    taking = Taking()
    for status_id in ("1", "2"):
        taking.event("update", status(status_id))
    taking.event("delete", "1")
    taking.handler.handle_gone("1", NOW)
    taking.handler.handle_gone("2", NOW)

    assert taking.topics.kinds()[2:] == [("delete", "1"), ("delete", "2")]
    assert (taking.summary.received, taking.summary.duplicates) == (5, 1)


def test_the_mocks_name_of_an_edit_is_known() -> None:
    taking = Taking()
    taking.event("status_update", status(visibility="private"))

    assert taking.topics.kinds() == [("delete", "1")]


@pytest.mark.parametrize(
    ("instance", "origins"),
    [("one.example", ["stream", "backfill"]), ("simulator.example", ["simulator", "simulator"])],
)
def test_a_message_says_where_it_came_from(instance: str, origins: list[str]) -> None:
    taking = Taking(instance=instance)
    taking.event("update", status("1"))
    taking.listed(status("2"))

    assert [message["origin"] for message in taking.topics.messages] == origins


@pytest.mark.parametrize("name", ["filters_changed", "notification", "announcement", "", "message"])
def test_other_events_are_counted_and_not_read(name: str) -> None:
    taking = Taking()
    taking.event(name, "undefined")

    assert taking.summary.ignored == 1
    assert taking.summary.received == 0
    assert taking.topics.errors == []


@pytest.mark.parametrize("data", ["", "undefined", "{", "NaN", "[" * 100_000, "9" * 5000 + "x"])
def test_of_a_payload_that_is_no_json_only_the_reason_is_kept(data: str) -> None:
    taking = Taking()
    taking.event("update", data)

    assert taking.summary.errors == {"not_json": 1}
    assert taking.payloads() == [None]


@pytest.mark.parametrize("document", [None, 5, [], {}, status(account=None)])
def test_where_consent_cannot_be_read_only_the_reason_is_kept(document: Any) -> None:
    taking = Taking()
    taking.event("update", document)
    taking.listed(document)

    assert taking.payloads()[0] is None
    assert {error["reason"] for error in taking.topics.errors} == {"unreadable"}
    assert taking.topics.messages == []
    assert "Good morning" not in str(taking.topics.errors)


def test_a_post_that_consents_but_cannot_be_read_is_kept_whole() -> None:
    taking = Taking()
    text = json.dumps(status(created_at="yesterday"))
    taking.event("update", text)
    taking.event("update", status("2", favourites_count=-1))
    taking.listed(status("3", uri=None, url=None, created_at=NOW))

    assert taking.summary.errors == {"not_normalised": 2, "contract": 1}
    assert taking.payloads()[0] == text
    assert json.loads(taking.payloads()[1])["id"] == "2"
    assert json.loads(taking.payloads()[2])["created_at"] == "2026-11-20T12:00:00.000000Z"


def test_a_delete_without_an_id_leaves_its_reason() -> None:
    taking = Taking()
    taking.event("delete", "")
    taking.event("delete", json.dumps(status()) * 10)

    assert taking.summary.errors == {"bad_delete": 2}
    assert taking.payloads() == [None, None]
    assert taking.topics.messages == []


def test_a_withheld_post_leaves_nothing_behind() -> None:
    taking = Taking()
    taking.event("update", status("1", visibility="unlisted"))
    taking.listed(status("2", account=account(note="#nobot")))

    assert taking.summary.withheld == {"not_public": 1, "nobot": 1}
    assert taking.topics.messages == []
    assert taking.topics.errors == []


def test_an_edit_that_is_withheld_deletes_the_post() -> None:
    taking = Taking()
    taking.event("status.update", status("1", visibility="private"))
    taking.event("status.update", status("2", account=account(noindex=True)))
    taking.event("status.update", status("3", account=None))
    taking.event("status.update", status(None, account=None))

    assert taking.topics.kinds() == [("delete", "1"), ("delete", "2"), ("delete", "3")]
    assert taking.summary.withheld == {"not_public": 1, "noindex": 1, "unreadable": 2}


def test_a_published_post_that_no_longer_passes_is_deleted() -> None:
    taking = Taking()
    taking.event("update", status("1"))
    taking.listed(status("1", account=account(note="#nobot")))

    assert taking.topics.kinds() == [("upsert", "1"), ("delete", "1")]


def test_a_post_from_stream_and_timeline_is_published_once() -> None:
    taking = Taking()
    edited = {"edited_at": "2026-11-20T12:00:00.000Z"}
    assert taking.event("update", status("1")) == "1"
    taking.listed(status("1", created_at=NOW))
    taking.event("status.update", status("1", **edited))
    taking.listed(status("1", edited_at=NOW))
    taking.event("update", status("1"))

    assert len(taking.topics.messages) == 2
    assert taking.summary.duplicates == 3


def test_a_withheld_post_from_both_counts_once() -> None:
    taking = Taking()
    taking.event("update", status("1", visibility="unlisted"))
    taking.listed(status("1", visibility="unlisted"))

    assert taking.summary.withheld == {"not_public": 1}
    assert taking.summary.duplicates == 1


def test_old_posts_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "_REMEMBERED_POSTS", 2)
    taking = Taking()
    for status_id in ("1", "2", "3", "1", "3"):
        taking.event("update", status(status_id))

    assert taking.topics.kinds() == [("upsert", each) for each in ("1", "2", "3", "1")]


def test_opt_in_is_passed_on() -> None:
    taking = Taking(rules=AdmissionPolicy("opt-in"))
    taking.event("update", status(account=account(indexable=False)))

    assert taking.summary.withheld == {"not_indexable": 1}


GERMAN = AdmissionPolicy(filters=Filters(languages=frozenset({"de"})))


def test_a_dropped_post_leaves_nothing_behind_but_its_rule() -> None:
    taking = Taking(rules=GERMAN)
    taking.event("update", status("1", language="de"))
    taking.event("update", status("2", language="en"))
    taking.listed(status("3", language=None))

    assert taking.topics.kinds() == [("upsert", "1")]
    assert taking.summary.dropped == {"language": 2}
    assert taking.summary.received == 3
    assert taking.topics.errors == []


def test_consent_is_decided_before_filters() -> None:
    taking = Taking(rules=GERMAN)
    taking.event("update", status("1", visibility="private", language="en"))

    assert taking.summary.withheld == {"not_public": 1}
    assert taking.summary.dropped == {}


def test_a_post_that_no_longer_passes_the_filters_is_deleted() -> None:
    taking = Taking(rules=GERMAN)
    taking.event("update", status("1", language="de"))
    taking.listed(status("1", language="en"))
    taking.event("status.update", status("2", language="en"))

    assert taking.topics.kinds() == [("upsert", "1"), ("delete", "1"), ("delete", "2")]
    assert taking.summary.dropped == {"language": 2}
    assert taking.summary.deletes == 2


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
def test_of_somebody_who_has_withdrawn_nothing_is_left(listed: SuppressionList) -> None:
    taking = Taking(instance="two.example", suppression_list=lambda: listed)
    taking.event("update", status("1"))
    taking.event("status.update", status("1", edited_at="2026-11-20T12:00:00Z"))
    taking.event("update", status("2", created_at="no time, which would be a dead letter"))
    taking.listed(status("3"))
    taking.event("update", status("4", account=account(acct="ada@three.example")))
    taking.event("delete", "3")

    assert taking.summary.withheld == {"withdrawn": 4}
    assert taking.topics.kinds() == [("upsert", "4"), ("delete", "3")]
    assert taking.topics.errors == []


def test_a_withdrawal_counts_from_the_moment_it_is_known() -> None:
    lists = [SuppressionList()]
    taking = Taking(suppression_list=lambda: lists[-1])
    taking.event("update", status("1"))
    lists.append(suppression_list("account", "ada@one.example"))
    taking.event("update", status("2"))

    assert taking.topics.kinds() == [("upsert", "1")]


def test_a_list_that_cannot_be_read_ends_the_run() -> None:
    def read() -> SuppressionList:
        if taken:
            raise SuppressionKeyError("another key")
        return SuppressionList()

    taken: list[str] = []
    taking = Taking(suppression_list=read)
    taken.append("one")

    with pytest.raises(SuppressionKeyError):
        taking.event("update", status("1"))


def test_a_server_that_has_withdrawn_is_not_read() -> None:
    with pytest.raises(SuppressedServerError, match=r"^one\.example has withdrawn: "):
        Taking(suppression_list=lambda: suppression_list("server", "ONE.example"))


def test_where_nobody_can_tell_whose_a_post_is_no_payload_is_kept() -> None:
    taking = Taking()
    taking.event("update", status(account=account(acct=None, username=None)))

    assert taking.summary.errors == {"not_normalised": 1}
    assert taking.payloads() == [None]


def test_the_summary_says_under_which_rules_it_was_counted() -> None:
    assert Taking(rules=AdmissionPolicy("opt-in")).summary.rules == "consent 1 opt-in; filters none"


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
    taking = Taking(rules=rules)
    taking.event(name, {**status(account=account(**account_changes)), **changes})
    summary = taking.summary

    assert summary.received == 1
    assert (
        summary.upserts
        + summary.withheld.total()
        + summary.dropped.total()
        + summary.errors.total()
        == 1
    )
    assert summary.upserts == sum(message["op"] == "upsert" for message in taking.topics.messages)
    assert "unexpected" not in summary.errors
    assert len(taking.topics.errors) == summary.errors.total() + summary.withheld["unreadable"]


@given(VALUES | DEEP | LONG, st.sampled_from(["update", "status.update", "delete"]))
def test_whatever_a_server_sends_as_a_status_is_accounted_for(document: Any, name: str) -> None:
    taking = Taking()
    taking.event(name, document)
    taking.listed(document)

    assert taking.summary.received == 2
    assert len(taking.topics.errors) + taking.summary.deletes == 2
