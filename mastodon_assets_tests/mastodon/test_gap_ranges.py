"""What is missing of several gaps, when the walk for them is given up somewhere between."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from mastodon_assets.mastodon.gaps import Gap
from mastodon_assets.mastodon.intake import IngestSummary
from mastodon_assets.mastodon.progress import Progress

BEGAN = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def closed(
    ranges: Sequence[tuple[str, str | None]], position: str | None, recovered: int
) -> list[tuple[str, str | None, str | None]]:
    """Status and range of each gap after a walk that ended at `position`."""
    progress = Progress(SecretStr(""), None, IngestSummary("one.example"), "public")  # type: ignore[arg-type]
    progress.position = position
    gaps = [
        Gap(BEGAN + timedelta(minutes=number), "cut", from_id, to_id)
        for number, (from_id, to_id) in enumerate(ranges)
    ]
    progress.close_gaps(gaps, recovered, "too much", are_posts_missing=True)
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
def test_a_gap_whose_end_nobody_told_is_missing_from_the_position_on() -> None:
    assert closed([("100", None)], "105", recovered=5) == [("partial", "105", None)]
    assert closed([("100", None)], "99", recovered=0) == [("unrecoverable", "100", None)]


@pytest.mark.usefixtures("cursors")
def test_of_ids_that_cannot_be_compared_the_whole_range_may_be_missing() -> None:
    assert closed([("AbC", "AcD")], "AbZ", recovered=3) == [("partial", "AbC", "AcD")]


@pytest.mark.usefixtures("cursors")
def test_a_gap_that_begins_while_another_is_walked_begins_where_the_stream_was() -> None:
    progress = Progress(SecretStr(""), None, IngestSummary("one.example"), "public")  # type: ignore[arg-type]
    progress.position, progress.last_streamed = "100", "300"
    progress.open_gap(BEGAN, "cut")
    assert [gap.from_id for gap in progress.open_gaps] == ["300"]
