"""Posts of whole days as Parquet files that join by id."""

import os
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr

from mastodon_assets.reports import post_export
from mastodon_assets.reports.post_export import (
    ExportedDay,
    PostExportError,
    export_posts,
    schemas,
)
from mastodon_assets.warehouse.database import MissingRightsError
from mastodon_assets_tests.support.merge_sink import Sink, opened_sink
from mastodon_assets_tests.support.records import delete, upsert

_DAY = date(2026, 11, 20)
_GUIDE = Path(post_export.__file__).parents[1] / "docs" / "guides" / "exports.md"
_HTML = (
    '<p><a href="https://two.example/@bob" class="u-url mention">@<span>bob</span></a> see'
    ' <a href="https://news.example/1">news</a></p>'
)


@pytest.fixture
def sink(fresh_database_url: SecretStr) -> Iterator[Sink]:
    with opened_sink(fresh_database_url) as opened:
        yield opened


def write_posts(sink: Sink) -> None:
    sink.write(
        upsert("1", hashtags=["tea", "rum"], content_html=_HTML),
        upsert("2", created_at="2026-11-20T00:00:00Z", content_html=None, hashtags=[]),
        upsert("3", created_at="2026-11-19T23:59:59.999999Z"),
    )


def export(url: SecretStr, folder: Path, days: int = 1) -> list[ExportedDay]:
    return list(export_posts(url, folder, _DAY - timedelta(days=days - 1), _DAY))


def rows(folder: Path, table: str, day: date = _DAY) -> list[dict[str, Any]]:
    read: list[dict[str, Any]] = pq.read_table(folder / table / f"{day}.parquet").to_pylist()
    return read


def test_the_files_of_a_day_join_by_id(
    sink: Sink, fresh_database_url: SecretStr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(post_export, "_POSTS_AT_ONCE", 1)
    write_posts(sink)
    folder = tmp_path / "of" / "posts"
    assert export(fresh_database_url, folder, days=3) == [
        ExportedDay(_DAY - timedelta(days=2), dict.fromkeys(schemas(), 0)),
        ExportedDay(
            _DAY - timedelta(days=1), {"posts": 1, "hashtags": 1, "mentions": 0, "links": 0}
        ),
        ExportedDay(_DAY, {"posts": 2, "hashtags": 2, "mentions": 1, "links": 1}),
    ]
    assert rows(folder, "posts", _DAY - timedelta(days=2)) == []
    second, first = rows(folder, "posts")
    assert (first["status_id"], second["status_id"]) == ("1", "2")
    (stored,) = sink.rows(
        "SELECT id, created_at, favourites, content_txt FROM masto.toots_raw WHERE status_id = '1'"
    )
    names = ("id", "created_at", "favourites", "content_txt")
    assert tuple(first[name] for name in names) == stored
    assert first["label_str"] is None
    assert rows(folder, "hashtags") == [
        {"id": first["id"], "position": place, "hashtag": tag}
        for place, tag in enumerate(["tea", "rum"])
    ]
    assert rows(folder, "mentions") == [
        {
            "id": first["id"],
            "position": 0,
            "account": "bob@two.example",
            "url": "https://two.example/@bob",
        }
    ]
    assert rows(folder, "links") == [
        {"id": first["id"], "position": 0, "url": "https://news.example/1"}
    ]
    for name, schema in schemas().items():
        assert pq.read_schema(folder / name / f"{_DAY}.parquet").equals(schema)


def test_a_day_that_is_written_again_is_without_the_posts_deleted_since(
    sink: Sink, fresh_database_url: SecretStr, tmp_path: Path
) -> None:
    write_posts(sink)
    export(fresh_database_url, tmp_path)
    sink.write(delete("1"))
    export(fresh_database_url, tmp_path)
    assert [post["status_id"] for post in rows(tmp_path, "posts")] == ["2"]
    assert rows(tmp_path, "mentions") == []


def test_only_the_owner_reads_the_files(
    sink: Sink, fresh_database_url: SecretStr, tmp_path: Path
) -> None:
    write_posts(sink)
    export(fresh_database_url, tmp_path)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) == 4
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_a_day_that_fails_leaves_its_files_as_they_were(
    sink: Sink, fresh_database_url: SecretStr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_posts(sink)
    export(fresh_database_url, tmp_path)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.parquet")}

    def fail(*_: Any) -> Any:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(post_export, "links_of", fail)
    with pytest.raises(PostExportError, match=r"2026-11-20: cannot write .*No space left"):
        export(fresh_database_url, tmp_path)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_a_role_that_may_not_read_posts_is_named(
    fresh_database_url: SecretStr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise MissingRightsError("permission denied for table toots_raw")

    monkeypatch.setattr(post_export, "_chunks", refuse)
    with pytest.raises(PostExportError, match="log in as masto_moderator"):
        export(fresh_database_url, tmp_path)


def test_the_guide_names_every_column() -> None:
    guide = _GUIDE.read_text(encoding="utf-8")
    for name, schema in schemas().items():
        assert f"`{name}`" in guide
        for column in schema.names:
            assert f"`{column}`" in guide, column
