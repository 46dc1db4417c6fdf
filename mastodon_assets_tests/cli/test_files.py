"""`export` as a user meets it."""

import json
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from mastodon_assets.reports import post_export
from mastodon_assets.reports.post_export import ExportedDay, PostExportError
from mastodon_assets_tests.support.commands import Commands

_ROWS = {"posts": 1_200, "hashtags": 7, "mentions": 0, "links": 1}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the export was asked for; it fails at the third day."""
    calls: list[Any] = []

    def export_posts(_: object, folder: Path, first: date, last: date) -> Iterator[ExportedDay]:
        calls.append((folder, first, last))
        for offset in range((last - first).days + 1):
            if offset == 2:
                raise PostExportError("2026-11-22: no space")
            yield ExportedDay(first + timedelta(days=offset), _ROWS)

    monkeypatch.setattr(post_export, "export_posts", export_posts)
    monkeypatch.setenv("DATABASE_URL", "postgresql://masto_moderator@127.0.0.1:1/posts")
    return calls


def test_each_day_is_a_line_or_an_entry(commands: Commands, asked: list[Any]) -> None:
    printed = commands("export", "posts", "--from", "2026-11-20", "--to", "2026-11-21")
    assert (printed.status, printed.err) == (0, "")
    assert printed.out.splitlines() == [
        f"2026-11-{day}  1,200 posts, 7 hashtags, 0 mentions, 1 links" for day in (20, 21)
    ]
    as_json = commands("export", "posts", "--from", "2026-11-20", "--json").out
    assert json.loads(as_json) == [{"day": "2026-11-20", **_ROWS}]
    first = date(2026, 11, 20)
    assert asked == [(Path("posts"), first, date(2026, 11, 21)), (Path("posts"), first, first)]


def test_a_failed_day_ends_it_after_those_before(commands: Commands, asked: list[Any]) -> None:
    ended = commands("export", "posts", "--from", "2026-11-20", "--to", "2026-11-24")
    assert ended.status == 1
    assert len(ended.out.splitlines()) == 2
    assert "2026-11-22: no space" in ended.err


def test_a_range_that_ends_before_it_begins_is_refused(
    commands: Commands, asked: list[Any]
) -> None:
    message = commands.failure(2, "export", "posts", "--from", "2026-11-20", "--to", "2026-11-19")
    assert message.startswith("--to 2026-11-19 is before --from 2026-11-20")
    assert asked == []
