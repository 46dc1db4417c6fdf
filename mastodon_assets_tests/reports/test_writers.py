"""Files are whole or not at all, and the same for the same data."""

import csv
import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from mastodon_assets.reports import charts, writers
from mastodon_assets_tests.support.report_frames import per_day


def _figure(toots_count: int = 3) -> Figure:
    return charts.toots_per_day(per_day(1, toots_count))


@contextmanager
def _files_of_at_most(size: int) -> Iterator[None]:
    """The system itself refuses to write more bytes to a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_picture_drawn_twice_has_the_same_bytes(tmp_path: Path) -> None:
    writers.write_chart(_figure(), tmp_path / "a.png")
    writers.write_chart(_figure(), tmp_path / "b.png")
    writers.write_chart(_figure(4), tmp_path / "c.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "c.png").read_bytes()


def test_a_picture_holds_no_time_and_no_version(tmp_path: Path) -> None:
    writers.write_chart(_figure(), tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n")
    assert not any(chunk in content for chunk in (b"tEXt", b"iTXt", b"tIME"))


def test_the_folder_is_made_and_the_file_can_be_read_as_the_umask_says(tmp_path: Path) -> None:
    path = tmp_path / "reports" / "new" / "a.png"
    before = os.umask(0o022)
    try:
        writers.write_chart(_figure(), path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    writers.write_chart(_figure(), path)
    old = path.read_bytes()
    with _files_of_at_most(1000), pytest.raises(writers.ReportFileError, match=r"a\.png"):
        writers.write_chart(_figure(4), path)
    assert path.read_bytes() == old
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_a_folder_that_cannot_be_made_is_an_error_of_one_line_that_names_the_setting(
    tmp_path: Path,
) -> None:
    (tmp_path / "reports").write_text("a file")
    with pytest.raises(writers.ReportFileError, match="REPORTS_DIR") as raised:
        writers.write_csv(pd.DataFrame({"n": [1]}), tmp_path / "reports" / "a.csv")
    assert os.strerror(errno.EEXIST) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_csv_file_is_utf_8_with_header_iso_dates_six_decimals_and_empty_nulls(
    tmp_path: Path,
) -> None:
    frame = pd.DataFrame(
        {
            "day": [date(2026, 10, 5), date(999, 1, 2)],
            "hashtag": ["日本語", 'a,"b"'],
            "n": [1, 20_000],
            "avg_prob_pos": [1 / 3, None],
        }
    )
    writers.write_csv(frame, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes().decode() == (
        'day,hashtag,n,avg_prob_pos\n2026-10-05,日本語,1,0.333333\n0999-01-02,"a,""b""",20000,\n'
    )


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@a", " =1"])
def test_text_that_a_spreadsheet_would_run_gets_an_apostrophe(tmp_path: Path, text: str) -> None:
    writers.write_csv(pd.DataFrame({"hashtag": [text], "n": [-1]}), tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == f"hashtag,n\n'{text},-1\n"


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\t=", "\x0b", "\x1f"])
def test_a_row_is_a_line_whatever_its_text_holds(tmp_path: Path, end: str) -> None:
    writers.write_csv(pd.DataFrame({"hashtag": [f"a{end}b"], "n": [1]}), tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        (_, row) = csv.reader(file.read().splitlines())
    assert row[1] == "1"


def test_other_text_is_written_as_it_is(tmp_path: Path) -> None:
    names = ["caturday", "a=b", "1", "", "'x"]
    writers.write_csv(pd.DataFrame({"hashtag": names}), tmp_path / "a.csv")
    read = pd.read_csv(tmp_path / "a.csv", dtype=str, keep_default_na=False)
    assert read["hashtag"].tolist() == names
