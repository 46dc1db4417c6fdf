"""Temporary folders, and what is left of them."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mastodon_assets.stream.errors import TemporaryFilesError
from mastodon_assets.stream.temporary_folders import temporary_folder

_KILLED = """
import os, signal
from mastodon_assets.stream.temporary_folders import temporary_folder
with temporary_folder("texts") as folder:
    (folder / "texts.arrow").write_text("words of a person")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def _age(folder: Path) -> None:
    """As it is an hour later."""
    os.utime(folder, (0, 0))


@pytest.mark.usefixtures("processes")
def test_what_a_killed_process_left_is_removed_by_the_next(place: Path) -> None:
    subprocess.run([sys.executable, "-c", _KILLED], timeout=60)
    (left,) = place.iterdir()
    assert (left / "texts.arrow").exists()
    _age(left)
    other = place / "mastodon_assets-another-purpose"
    other.mkdir()
    _age(other)
    with temporary_folder("texts") as folder:
        assert set(place.iterdir()) == {folder, other}
    assert list(place.iterdir()) == [other]


def test_a_folder_in_use_or_just_made_is_left_alone(place: Path) -> None:
    made = place / "mastodon_assets-texts-just-made"
    with temporary_folder("texts") as used:
        _age(used)
        made.mkdir()
        with temporary_folder("texts") as second:
            assert set(place.iterdir()) == {used, made, second}


def test_a_link_with_the_name_of_a_folder_leads_nowhere(place: Path) -> None:
    target = place / "target"
    target.mkdir()
    link = place / "mastodon_assets-texts-link"
    link.symlink_to(target)
    _age(target)
    with temporary_folder("texts"):
        assert target.is_dir()


def test_a_folder_that_cannot_be_made_is_one_line(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(place / "missing"))
    with pytest.raises(TemporaryFilesError, match="set TMPDIR"), temporary_folder("texts"):
        pass
