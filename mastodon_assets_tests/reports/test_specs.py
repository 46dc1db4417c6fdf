"""From the tables to files: every chart and export, from an empty database to years of posts."""

import csv
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from psycopg import Connection
from pydantic import SecretStr

from mastodon_assets.embedded.stack import Connection as StackConnection
from mastodon_assets.reports import specs, writers
from mastodon_assets.reports.specs import (
    CHARTS,
    EXPORTS,
    ChartResult,
    ExportResult,
    FileState,
    render_chart,
    write_export,
)
from mastodon_assets.warehouse.database import connect, transaction
from mastodon_assets.warehouse.tables import TABLES
from mastodon_assets_tests.support.databases import left_database
from mastodon_assets_tests.support.report_rows import (
    MONDAY,
    ODD_HASHTAGS,
    Post,
    insert_hashtags,
    insert_hourly,
    insert_posts,
)


def _fill(connection: Connection[Any], days: int) -> None:
    insert_posts(
        connection,
        [
            Post(MONDAY - timedelta(days=day), label, 1 + day % 3)
            for day in range(days)
            for label in ("positive", "negative", "no_words", None)
        ],
    )
    names = [*ODD_HASHTAGS, *(f"tag{number}" for number in range(30))]
    insert_hashtags(connection, {name: 1 + rank for rank, name in enumerate(names)})
    insert_hourly(connection, days)


def _rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def _width(path: Path) -> int:
    with Image.open(path) as picture:
        return picture.width


def test_the_names_are_those_of_the_first_version() -> None:
    assert list(CHARTS)[:4] == [
        "part5_sentiment_distribution",
        "part5_sentiment_by_day_stacked",
        "part5_toots_per_day",
        "part5_top_hashtags",
    ]
    assert list(EXPORTS) == ["viz_sentiment_dist", "viz_sentiment_daily", "viz_top_hashtags"]


def test_each_chart_and_export_reads_tables_that_exist() -> None:
    read = [chart.reads for chart in CHARTS.values()]
    read += [export.reads for export in EXPORTS.values()]
    assert {table for tables in read for table in tables} <= set(TABLES)


@pytest.mark.parametrize("name", CHARTS)
def test_an_empty_table_gives_an_honest_picture(
    connection: Connection[Any], name: str, tmp_path: Path
) -> None:
    result = render_chart(connection, name, tmp_path)
    assert result.empty
    assert result.rows == 0
    assert result.sparkline_markdown == ""
    assert result.path == tmp_path / f"{name}.png"
    assert _width(result.path) == 1600


@pytest.fixture(scope="module", params=[1, 7, 366, 1000])
def days_of_posts(
    request: pytest.FixtureRequest, stack: StackConnection
) -> Iterator[Connection[Any]]:
    """A database of their own with posts of that many days, for all charts."""
    with left_database(stack) as url, connect(url) as connection:
        _fill(connection, request.param)
        yield connection


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_is_drawn_from_a_day_a_week_a_year_and_three(
    days_of_posts: Connection[Any], name: str, tmp_path: Path
) -> None:
    result = render_chart(days_of_posts, name, tmp_path)
    assert not result.empty
    assert result.rows > 0
    assert _width(result.path) == 1600
    assert result.preview_markdown.startswith("![preview](data:image/png;base64,")
    assert 0 < len(result.sparkline_markdown) < 900


@pytest.mark.parametrize("name", CHARTS)
def test_a_second_run_on_the_same_data_changes_no_chart(
    connection: Connection[Any], name: str, tmp_path: Path
) -> None:
    _fill(connection, 7)
    first = render_chart(connection, name, tmp_path)
    content = first.path.read_bytes()
    assert render_chart(connection, name, tmp_path) == first
    assert first.path.read_bytes() == content


def _make(
    connection: Connection[Any], name: str, folder: Path, earlier: FileState | None = None
) -> ChartResult | ExportResult:
    make = render_chart if name in CHARTS else write_export
    return make(connection, name, folder, earlier)


def _change_a_row(connection: Connection[Any], _file: Path, _patch: pytest.MonkeyPatch) -> None:
    connection.execute("UPDATE masto.sentiment_totals SET toots_count = toots_count + 1")


def _remove_the_file(_connection: Connection[Any], file: Path, _patch: pytest.MonkeyPatch) -> None:
    file.unlink()


def _cut_the_file(_connection: Connection[Any], file: Path, _patch: pytest.MonkeyPatch) -> None:
    file.write_bytes(file.read_bytes()[:9])


def _change_the_code(_connection: Connection[Any], _file: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(specs, "_revision", lambda: "another")


@pytest.mark.parametrize("name", ["part5_sentiment_distribution", "viz_sentiment_dist"])
def test_a_file_of_the_same_rows_and_code_is_not_made_again(
    connection: Connection[Any], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(connection, 2)
    first = _make(connection, name, tmp_path)
    for writer in ("write_chart", "write_csv"):
        monkeypatch.delattr(writers, writer)
    second = _make(connection, name, tmp_path, FileState.from_text(first.state.as_text()))
    assert (second.rows, second.state) == (first.rows, first.state)
    if isinstance(second, ChartResult):
        assert (second.is_changed, second.preview_markdown) == (False, "")


@pytest.mark.parametrize(
    "change", [_change_a_row, _remove_the_file, _cut_the_file, _change_the_code]
)
@pytest.mark.parametrize("name", ["part5_sentiment_distribution", "viz_sentiment_dist"])
def test_a_file_is_made_again_after_another_row_another_code_or_without_the_file(
    connection: Connection[Any],
    name: str,
    change: Callable[[Connection[Any], Path, pytest.MonkeyPatch], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _fill(connection, 2)
    first = _make(connection, name, tmp_path)
    content = first.path.read_bytes()
    change(connection, first.path, monkeypatch)
    second = _make(connection, name, tmp_path, first.state)
    changes_content = change is _change_a_row
    assert (second.path.read_bytes() != content) == changes_content
    assert (second.state == first.state) == (change in (_remove_the_file, _cut_the_file))


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("viz_sentiment_dist", "label_str,n"),
        ("viz_sentiment_daily", "day,n_toosts,n_pos,n_neg,n_neu,avg_prob_pos,n_unscored"),
        ("viz_top_hashtags", "hashtag,n"),
    ],
)
def test_an_export_of_an_empty_table_is_its_header(
    connection: Connection[Any], name: str, header: str, tmp_path: Path
) -> None:
    result = write_export(connection, name, tmp_path)
    assert result.rows == 0
    assert result.path.read_text() == f"{header}\n"


def test_the_exports_hold_what_the_tables_hold(connection: Connection[Any], tmp_path: Path) -> None:
    insert_posts(
        connection,
        [
            Post(MONDAY, "no_model", 2),
            Post(MONDAY + timedelta(days=2), "positive", 2),
            Post(MONDAY + timedelta(days=2), "negative", 1),
            Post(MONDAY + timedelta(days=2), None, 1),
        ],
    )
    insert_hashtags(connection, {"日本語": 4, "=1+1": 3, "caturday": 3})
    results = [write_export(connection, name, tmp_path) for name in EXPORTS]
    assert [_rows(result.path)[1:] for result in results] == [
        [["positive", "2"], ["negative", "1"], ["unlabelled", "3"]],
        [
            ["2026-10-05", "2", "0", "0", "0", "", "2"],
            ["2026-10-07", "4", "2", "1", "0", "0.666667", "1"],
        ],
        [["日本語", "4"], ["'=1+1", "3"], ["caturday", "3"]],
    ]
    assert [result.rows for result in results] == [3, 2, 3]


def test_a_read_only_snapshot_is_enough(database_url: SecretStr, tmp_path: Path) -> None:
    with transaction(database_url, snapshot=True) as connection:
        for name in CHARTS:
            render_chart(connection, name, tmp_path)
        for name in EXPORTS:
            write_export(connection, name, tmp_path)
    assert len(list(tmp_path.iterdir())) == len(CHARTS) + len(EXPORTS)


@pytest.mark.usefixtures("processes")
def test_the_catalogue_loads_neither_pandas_nor_matplotlib() -> None:
    program = (
        "import sys, mastodon_assets.reports.specs;"
        "print(sorted({'pandas', 'matplotlib', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
