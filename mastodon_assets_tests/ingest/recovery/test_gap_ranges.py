"""Several gaps: what is asked for, and what is missing when their walk is given up between them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.ingest import gap_repair as gap_repair_module
from mastodon_assets.ingest.checkpoint import Checkpoint
from mastodon_assets.ingest.gap_repair import GapRepair
from mastodon_assets.ingest.handler import IngestSummary
from mastodon_assets.ingest.recovery.gaps import Gap
from mastodon_assets.ingest.recovery.timeline_walk import (
    WalkEnded,
    WalkReachedStream,
    WalkRequest,
)
from mastodon_assets_tests.support.log_lines import log_lines

BEGAN = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def closed(
    ranges: Sequence[tuple[str, str | None]], position: str | None, recovered: int
) -> list[tuple[str, str | None, str | None]]:
    """Status and range of each gap after a walk that ended at `position`."""
    checkpoint = Checkpoint(SecretStr(""), None, IngestSummary("one.example"), "public")  # type: ignore[arg-type]
    checkpoint.position = position
    gaps = [
        Gap(BEGAN + timedelta(minutes=number), "cut", from_id, to_id)
        for number, (from_id, to_id) in enumerate(ranges)
    ]
    gaps[0].recovered_count = recovered
    checkpoint.close_gaps(gaps, "too much", are_posts_missing=True)
    return [(gap.status, gap.from_id, gap.to_id) for gap in gaps]


@pytest.mark.usefixtures("cursors")
def test_a_gap_before_the_position_is_empty_and_one_after_it_is_whole() -> None:
    ranges = [("100", "110"), ("200", "210"), ("1000", "1010")]
    assert closed(ranges, "205", recovered=7) == [
        ("partial", "110", "110"),
        ("partial", "205", "210"),
        ("unrecoverable", "1000", "1010"),
    ]


@pytest.mark.usefixtures("cursors")
def test_a_gap_without_a_known_end_is_missing_from_the_position_on() -> None:
    assert closed([("100", None)], "105", recovered=5) == [("partial", "105", None)]
    assert closed([("100", None)], "99", recovered=0) == [("unrecoverable", "100", None)]


@pytest.mark.usefixtures("cursors")
def test_the_whole_range_may_be_missing_if_ids_cannot_be_compared() -> None:
    assert closed([("AbC", "AcD")], "AbZ", recovered=3) == [("partial", "AbC", "AcD")]


@pytest.mark.usefixtures("cursors")
def test_a_gap_that_begins_while_another_is_walked_begins_where_the_stream_was() -> None:
    checkpoint = Checkpoint(SecretStr(""), None, IngestSummary("one.example"), "public")  # type: ignore[arg-type]
    checkpoint.position, checkpoint.last_streamed = "100", "300"
    checkpoint.open_gap(BEGAN, "cut")
    assert [gap.from_id for gap in checkpoint.open_gaps] == ["300"]


@pytest.mark.usefixtures("cursors")
def test_posts_from_before_a_gap_are_requested_again_however_long_it_waits() -> None:
    published: list[str] = []
    gap_repair, _, requests = at_position("100", published)

    # The first gap's walk goes on while two others come, and many posts after each of them.
    for number, ids in enumerate((["1", "2", "3"], ["4", "5"], ["6"])):
        published += ids
        interrupt(gap_repair, number)
    published += ["7", "8", "9"]
    gap_repair.end(WalkEnded(None))

    assert [request.known_ids for request in requests] == [["3", "2"], ["5", "6", "4"]]


@pytest.mark.usefixtures("cursors")
def test_posts_read_before_kafka_went_away_are_before_the_gap() -> None:
    published = ["1", "2"]
    gap_repair, checkpoint, requests = at_position("100", published)
    gap_repair.open_gap(BEGAN, "Kafka away")
    # Kafka is back: what waited is taken, then the stream is open again.
    published.append("150")
    gap_repair.note_streamed("150")
    gap_repair.end_gap(BEGAN + timedelta(minutes=5))
    gap_repair.note_streamed("300")

    assert [(gap.from_id, gap.to_id) for gap in checkpoint.open_gaps] == [("150", "300")]
    assert [(request.start, request.known_ids) for request in requests] == [("100", ["150", "2"])]


@pytest.mark.usefixtures("cursors")
def test_a_gap_is_given_up_when_the_stream_shows_where_it_ends() -> None:
    gap_repair, checkpoint, requests = at_position("100", [])
    interrupt(gap_repair, 0)
    (gap,) = checkpoint.open_gaps

    gap_repair.end(WalkEnded("too much"))
    assert (gap.status, gap.to_id, len(requests)) == ("open", None, 1)

    gap_repair.note_streamed("300")
    gap_repair.note_streamed("301")
    assert (gap.status, gap.from_id, gap.to_id) == ("unrecoverable", "100", "300")
    assert (checkpoint.open_gaps, checkpoint.position) == ([], "301")


@pytest.mark.usefixtures("cursors")
def test_a_walk_that_comes_to_a_limit_goes_on_from_there_in_the_same_gap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gap_repair_module, "SECONDS_UNTIL_GOING_ON", 0)
    gap_repair, checkpoint, requests = at_position("100", ["7"])
    interrupt(gap_repair, 0)
    gap_repair.note_streamed("300")
    checkpoint.move_to("200")
    gap_repair.end(WalkEnded("too much", goes_on=True))
    gap_repair.note_streamed("301")
    (gap,) = checkpoint.open_gaps
    assert (gap.status, checkpoint.position) == ("open", "200")

    gap_repair.try_again_in_time()
    assert requests[1:] == [WalkRequest("200", [], goes_on=True)]
    checkpoint.move_to("300")
    gap_repair.handle(WalkReachedStream())
    gap_repair.end(WalkEnded(None))
    assert (gap.status, gap.from_id, gap.to_id) == ("recovered", "100", "300")
    assert checkpoint.open_gaps == []


@pytest.mark.usefixtures("cursors")
def test_a_gap_continues_if_the_stream_sends_nothing_after_it() -> None:
    gap_repair, checkpoint, requests = at_position("100", [])
    interrupt(gap_repair, 0)
    gap_repair.end(WalkEnded("too much"))

    interrupt(gap_repair, 1, reason="silence")
    gap_repair.note_streamed("300")
    gap_repair.end(WalkEnded("too much"))

    assert len(requests) == 2
    assert checkpoint.closed_gaps == {"unrecoverable": 1}


@pytest.mark.usefixtures("cursors")
def test_a_gap_without_a_known_post_before_it_ends_with_the_first_post() -> None:
    gap_repair, checkpoint, requests = at_position(None, [])
    interrupt(gap_repair, 0)
    (gap,) = checkpoint.open_gaps

    gap_repair.note_streamed("300")

    assert (gap.status, gap.from_id, gap.to_id) == ("unrecoverable", None, "300")
    assert requests == []


@pytest.mark.usefixtures("cursors")
def test_a_walk_that_fails_after_a_reconnect_does_not_use_up_an_attempt() -> None:
    """A server that comes and goes for a minute does not use up the tries of an hour."""
    gap_repair, checkpoint, requests = at_position("100", [])
    for minute in range(10):
        interrupt(gap_repair, minute)
        with log_lines() as lines:
            gap_repair.fail(ServiceUnavailableError("503"))
        assert "trying again in 15 minutes" in lines[0]

    assert len(requests) == 10
    assert {gap.status for gap in checkpoint.open_gaps} == {"open"}


def at_position(
    position: str | None, published: list[str]
) -> tuple[GapRepair, Checkpoint, list[WalkRequest]]:
    """Of `published` the last two are known; the walks that are begun come into the list."""
    checkpoint = Checkpoint(SecretStr(""), None, IngestSummary("one.example"), "public")  # type: ignore[arg-type]
    checkpoint.position = position
    requests: list[WalkRequest] = []
    handler: Any = SimpleNamespace(
        published_ids=lambda _limit: published[:-3:-1], summary=IngestSummary("one.example")
    )
    brake: Any = SimpleNamespace(reason=None)
    queue: Any = SimpleNamespace(
        walk=requests.append,
        note_streamed=lambda _status_id: None,
        note_listed=lambda _status_id: None,
    )
    return (
        GapRepair(queue, handler, checkpoint, brake, "one.example/public", from_oldest=False),
        checkpoint,
        requests,
    )


def interrupt(gap_repair: GapRepair, minute: int, reason: str = "cut") -> None:
    """The stream breaks and is opened again."""
    gap_repair.open_gap(BEGAN + timedelta(minutes=minute), reason)
    gap_repair.end_gap(BEGAN + timedelta(minutes=minute, seconds=1))
