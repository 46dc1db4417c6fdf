"""The shape of a synthetic history, and that it is the same whenever it is asked for."""

import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest

from mastodon_assets.simulator.sources import SyntheticSource
from mastodon_assets.simulator.statuses import Status
from mastodon_assets.simulator.synthetic import Event, LivePosts, history

NOW = datetime(2026, 11, 23, 15, 30, tzinfo=UTC)
MIDNIGHT = datetime(2026, 11, 23, tzinfo=UTC)
TOOTS, DAYS = 2000, 7


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return history(toots=TOOTS, days=DAYS, seed=1, now=NOW)


@pytest.fixture(scope="module")
def posts(events: list[Event]) -> list[Status]:
    """New posts, each once, in order of arrival; of the poisonous ones those that can be parsed."""
    return list({e.status_id: e.status for e in events if e.kind == "update" and e.status}.values())


def stream_bytes(events: list[Event], seed: int = 1) -> bytes:
    source = SyntheticSource(events, live=LivePosts(seed, today=NOW))
    return b"".join(frame.data for frame in source.history())


def created_at(status: Status) -> datetime:
    return datetime.fromisoformat(status["created_at"])


def arrived_at(status_id: str) -> datetime:
    return datetime.fromtimestamp((int(status_id) >> 16) / 1000, UTC)


def test_the_same_seed_gives_the_same_bytes(events: list[Event]) -> None:
    again = history(toots=TOOTS, days=DAYS, seed=1, now=NOW)
    assert stream_bytes(again) == stream_bytes(events)


def test_another_seed_gives_other_bytes(events: list[Event]) -> None:
    other = history(toots=TOOTS, days=DAYS, seed=2, now=NOW)
    assert stream_bytes(other) != stream_bytes(events)


def test_the_hour_of_the_run_moves_only_the_posts_dated_ahead(events: list[Event]) -> None:
    later = history(toots=TOOTS, days=DAYS, seed=1, now=NOW + timedelta(hours=3))
    changed = [
        (before.status, after.status)
        for before, after in zip(events, later, strict=True)
        if before != after
    ]
    assert changed
    for before, after in changed:
        assert before is not None
        assert after is not None
        assert created_at(before) == NOW + timedelta(hours=4)
        assert created_at(after) == NOW + timedelta(hours=7)


@pytest.mark.parametrize("toots", [1, 2, 40, 2000])
def test_there_are_as_many_posts_as_asked_for_and_poison_on_top(toots: int) -> None:
    updates = {
        event.status_id
        for event in history(toots=toots, days=3, seed=5, now=NOW)
        if event.kind == "update"
    }
    assert len(updates) == toots + -(-toots // 400)


@pytest.mark.parametrize(("toots", "days"), [(0, 7), (10, 0)])
def test_a_history_of_nothing_is_refused(toots: int, days: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        history(toots=toots, days=days, seed=1, now=NOW)


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        history(toots=1, days=1, seed=1, now=NOW.replace(tzinfo=None))


def test_edits_are_three_per_cent_and_deletes_two(events: list[Event]) -> None:
    kinds = Counter(event.kind for event in events)
    assert kinds["status.update"] == 60
    assert kinds["delete"] == 40


def test_some_edits_and_deletes_come_before_their_post_and_most_after(events: list[Event]) -> None:
    first_seen: dict[str, int] = {}
    for place, event in enumerate(events):
        if event.kind == "update":
            first_seen.setdefault(event.status_id, place)
    for kind in ("status.update", "delete"):
        places = [
            (place, first_seen[event.status_id])
            for place, event in enumerate(events)
            if event.kind == kind
        ]
        early = sum(place < post for place, post in places)
        assert 0 < early < len(places) / 2


def test_a_few_posts_arrive_twice_unchanged(events: list[Event]) -> None:
    updates = [event for event in events if event.kind == "update"]
    counts = Counter(event.status_id for event in updates)
    repeated = {status_id for status_id, count in counts.items() if count > 1}
    assert len(repeated) == 10
    for status_id in repeated:
        first, second = (event for event in updates if event.status_id == status_id)
        assert first == second


def test_an_edit_changes_the_text_and_keeps_the_identity(
    events: list[Event], posts: list[Status]
) -> None:
    originals = {status["id"]: status for status in posts}
    edits = [event.status for event in events if event.kind == "status.update"]
    assert sum(edit["content"] != originals[edit["id"]]["content"] for edit in edits if edit) > 50
    for edit in edits:
        assert edit is not None
        original = originals[edit["id"]]
        assert edit["edited_at"] > original["created_at"]
        for key in ("uri", "created_at", "account", "visibility"):
            assert edit[key] == original[key]


def test_ids_are_unique_numbers_in_the_order_of_arrival(posts: list[Status]) -> None:
    ids = [status["id"] for status in posts]
    assert len(set(ids)) == len(ids)
    assert len({status["uri"] for status in posts}) == len(ids)
    for status_id in ids:
        assert MIDNIGHT - timedelta(days=DAYS) <= arrived_at(status_id) < MIDNIGHT


def test_posts_spread_over_whole_past_days_with_more_by_day_than_by_night(
    posts: list[Status],
) -> None:
    arrivals = [arrived_at(status["id"]) for status in posts]
    assert len({moment.date() for moment in arrivals}) == DAYS
    night = sum(moment.hour < 6 for moment in arrivals)
    evening = sum(moment.hour >= 18 for moment in arrivals)
    assert evening > 4 * night


def test_late_posts_are_late_by_hours_and_at_most_by_eighteen(posts: list[Status]) -> None:
    delays = [arrived_at(status["id"]) - created_at(status) for status in posts]
    late = [delay for delay in delays if delay > timedelta(minutes=5)]
    assert len(late) == pytest.approx(40, abs=5)
    assert max(late) <= timedelta(hours=18)
    assert min(created_at(status) for status in posts) >= MIDNIGHT - timedelta(days=DAYS)


def test_at_most_one_post_a_language_is_dated_ahead_and_nothing_else_depends_on_it(
    events: list[Event], posts: list[Status]
) -> None:
    ahead = [status for status in posts if created_at(status) > MIDNIGHT]
    assert [created_at(status) for status in ahead] == [NOW + timedelta(hours=4)] * 3
    assert len({status["language"] for status in ahead}) == 3
    assert len({status["account"]["acct"] for status in ahead}) == 3
    assert not any(status["tags"] for status in ahead)
    mentioned = Counter(event.status_id for event in events)
    assert all(mentioned[status["id"]] == 1 for status in ahead)


def test_english_leads_and_nine_languages_and_none_follow(posts: list[Status]) -> None:
    languages = Counter(status["language"] for status in posts)
    assert set(languages) == {"en", "de", "fr", "es", "ja", "pt", "it", "ru", "ar", None}
    assert languages["en"] / len(posts) == pytest.approx(0.6, abs=0.05)


def test_one_hashtag_is_the_clear_favourite_and_case_varies(posts: list[Status]) -> None:
    spelled = [tag["name"] for status in posts for tag in status["tags"]]
    (first, most), (_, second_most) = Counter(map(str.lower, spelled)).most_common(2)
    assert first == "photography"
    assert most > 1.4 * second_most
    assert {"photography", "Photography"} <= set(spelled)


def test_a_few_accounts_write_much_and_many_write_little(posts: list[Status]) -> None:
    toots = Counter(status["account"]["acct"] for status in posts)
    assert 120 <= len(toots) <= 170
    assert sum(count > 5 for count in toots.values()) >= 30
    assert sum(count for _, count in toots.most_common(15)) > len(posts) / 3


def test_local_accounts_have_no_domain_and_remote_ones_have_that_of_their_page(
    posts: list[Status],
) -> None:
    kinds = set()
    for account in (status["account"] for status in posts):
        host = urlsplit(account["url"]).hostname
        is_local = host == "simulator.example"
        kinds.add(is_local)
        expected = account["username"] if is_local else f"{account['username']}@{host}"
        assert account["acct"] == expected
    assert kinds == {True, False}


def test_what_needs_consent_is_there_a_few_times_each(posts: list[Status]) -> None:
    cases = {
        "unlisted": sum(status["visibility"] == "unlisted" for status in posts),
        "private": sum(status["visibility"] == "private" for status in posts),
        "boost": sum(status["reblog"] is not None for status in posts),
        "noindex": sum(status["account"].get("noindex", False) for status in posts),
        "nobot": sum(">nobot<" in status["account"]["note"] for status in posts),
        "bot": sum(status["account"]["bot"] for status in posts),
        "sensitive": sum(status["sensitive"] and bool(status["spoiler_text"]) for status in posts),
        "media only": sum(not status["content"] for status in posts),
        "reply": sum(status["in_reply_to_id"] is not None for status in posts),
        "not indexable": sum(not status["account"]["indexable"] for status in posts),
    }
    assert min(cases.values()) >= 3, cases
    assert cases["noindex"] < 200
    assert cases["nobot"] < 200


def test_content_is_html_with_everything_mastodon_writes(posts: list[Status]) -> None:
    content = " ".join(status["content"] for status in posts)
    for part in (
        '<span class="invisible">https://</span>',
        '<span class="ellipsis">',
        "<br />",
        "</p><p>",
        "&amp;",
        "&lt;3",
        "&#39;",
        'class="u-url mention"',
        'class="mention hashtag" rel="tag"',
        "not happy",
        "\u2028",
        "\u0085",
        "😊",
    ):
        assert part in content, part


def test_moods_change_from_day_to_day(posts: list[Status]) -> None:
    happy: Counter[str] = Counter()
    of_day: Counter[str] = Counter()
    for status in posts:
        if status["language"] == "en":
            day = f"{arrived_at(status['id']):%F}"
            of_day[day] += 1
            happy[day] += bool(
                re.search(r"[Hh]appy with|love|great|wonderful|best", status["content"])
            )
    shares = [happy[day] / count for day, count in of_day.items()]
    assert max(shares) > 1.3 * min(shares)


def test_every_host_is_invented(events: list[Event]) -> None:
    hosts = set(re.findall(r"https?://([^/\"<>\\ ]+)", stream_bytes(events).decode()))
    assert "simulator.example" in hosts
    # An address in the text is split among spans: its scheme is alone.
    assert all(host.endswith(".example") for host in hosts), hosts


def test_every_kind_of_poison_appears_in_a_long_history() -> None:
    long_history = history(toots=4000, days=3, seed=1, now=NOW)
    raw = [event.data for event in long_history if event.data is not None]
    statuses = [event.status for event in long_history if event.status is not None]
    assert len(raw) == 7
    parsed = [json.loads(text) for text in raw if not is_broken(text)]
    assert len(parsed) == 6
    assert None in parsed
    objects = [value for value in parsed if value is not None]
    assert sum("id" not in value for value in objects) == 1
    assert sum("account" not in value for value in objects) == 1
    assert sum(value["content"] is None for value in objects) == 1
    assert sum(value["created_at"] == "yesterday" for value in objects) == 1
    assert sum(not value.get("id", "0").isdecimal() for value in objects) == 1
    assert sum("\ud83d" in status["content"] for status in statuses) == 1
    assert sum("\x00" in status["content"] for status in statuses) == 1
    assert sum(len(tag["name"]) > 8000 for status in statuses for tag in status["tags"]) == 1


def is_broken(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return True
    return False


def test_a_status_has_the_fields_of_mastodon(posts: list[Status]) -> None:
    expected = {
        *("id", "created_at", "in_reply_to_id", "in_reply_to_account_id", "sensitive"),
        *("spoiler_text", "visibility", "language", "uri", "url", "replies_count"),
        *("reblogs_count", "favourites_count", "quotes_count", "edited_at", "content", "reblog"),
        *("account", "media_attachments", "mentions", "tags", "emojis", "quote", "card", "poll"),
    }
    for status in posts:
        assert expected <= set(status)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", status["created_at"])


def test_live_posts_have_rising_ids_and_the_time_they_are_asked_for() -> None:
    live = LivePosts(1, today=NOW)
    ids = []
    for _ in range(50):
        event = live.post(NOW)
        assert event.status is not None
        assert timedelta() <= created_at(event.status) - NOW < timedelta(seconds=1)
        ids.append(int(event.status_id))
    assert ids == sorted(set(ids))
