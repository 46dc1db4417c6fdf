"""Recorded statuses: read line by line, served as they stand."""

import gzip
from pathlib import Path

import pytest

from mastodon_assets.contract.recordings import RecordingError
from mastodon_assets.simulator.recorded import read_statuses


def test_lines_are_kept_byte_for_byte_and_empty_ones_skipped(tmp_path: Path) -> None:
    path = tmp_path / "toots.ndjson"
    first = b'{"id": "01FVW", "content" :"\\u003cp>\\ud83d caf\xc3\xa9\xe2\x80\xa8"}'
    path.write_bytes(first + b"\r\n\n   \n" + b'{"id":"2","account":{"acct":"nora"}}')
    statuses = read_statuses(path)
    assert [status.line for status in statuses] == [first, b'{"id":"2","account":{"acct":"nora"}}']
    assert [status.status_id for status in statuses] == ["01FVW", "2"]
    assert [status.is_local for status in statuses] == [False, True]


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"null",
        b"[]",
        b'"1"',
        b"{}",
        b'{"id": null}',
        b'{"id": true}',
        b'{"id": ""}',
        b'{"\xff"}',
    ],
)
def test_a_line_that_is_no_status_is_an_error_of_one_line_with_its_number(
    tmp_path: Path, line: bytes
) -> None:
    path = tmp_path / "toots.ndjson"
    path.write_bytes(b'{"id": "1"}\n\n' + line + b"\n")
    with pytest.raises(RecordingError, match="status 2: ") as caught:
        read_statuses(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"cannot read .*missing\.ndjson: No such file"):
        read_statuses(tmp_path / "missing.ndjson")


@pytest.mark.parametrize(
    "content",
    [
        b'\xef\xbb\xbf{"id": 1}\n{"id": "2"}',
        gzip.compress(b'{"id": "1"}\n{"id": "2"}'),
        b'[{"id": "1"}, {"id": 2}]',
        b'{"statuses": [{"id": "1"}, {"id": "2"}], "account": {}}',
    ],
    ids=["byte order mark", "gzipped", "JSON array", "mastodon-archive"],
)
def test_a_file_may_have_any_format_of_recordings(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "toots"
    path.write_bytes(content)

    assert [status.status_id for status in read_statuses(path)] == ["1", "2"]
    assert b'"id":"2"' in read_statuses(path)[1].line.replace(b" ", b"")
