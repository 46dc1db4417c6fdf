"""The access log: private, rotated, and never silently missing."""

import json
import stat
from pathlib import Path

import pytest

from mastodon_assets.dashboard import access_log
from mastodon_assets.dashboard.access_log import AccessLog, AccessLogError


def test_each_line_is_an_object_in_a_private_file_that_is_rotated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log, "_LARGEST", 2_000)
    monkeypatch.setattr(access_log, "_KEPT", 2)
    log = AccessLog(tmp_path / "state")
    for number in range(100):
        log.write("look", "127.0.0.1", session="abc", filters="hashtag=日\n", posts=number)
    log.close()
    files = sorted(log.path.parent.iterdir())
    assert [file.name for file in files] == [
        "dashboard-access.log",
        "dashboard-access.log.1",
        "dashboard-access.log.2",
    ]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    lines = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert lines[-1]["posts"] == 99
    assert lines[-1]["filters"] == "hashtag=日\n"
    assert set(lines[-1]) == {"at", "event", "client", "session", "filters", "posts"}


def test_what_cannot_be_written_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file, not a folder")
    with pytest.raises(AccessLogError, match=r"\Acannot write the access log .*MASTODON_ASSETS"):
        AccessLog(tmp_path / "state").write("look", "127.0.0.1")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / access_log.FILE).mkdir()
    with pytest.raises(AccessLogError):
        AccessLog(tmp_path / "other").write("look", "127.0.0.1")
