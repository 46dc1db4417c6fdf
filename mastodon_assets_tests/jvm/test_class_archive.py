import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mastodon_assets.jvm.class_archive import ClassArchive


@pytest.fixture
def java_home(tmp_path: Path) -> Path:
    server = tmp_path / "java" / "lib" / "server"
    server.mkdir(parents=True)
    (server / "classes.jsa").touch()
    return tmp_path / "java"


def _archive(tmp_path: Path, java_home: Path) -> ClassArchive:
    cache = tmp_path / "cache of a person"
    cache.mkdir(exist_ok=True)
    return ClassArchive(cache, java_home, [tmp_path])


def _end(archive: ClassArchive, options: str, *, status: int) -> None:
    """As a JVM does: write the file that the options name, and end."""
    # As Spark splits them, at spaces outside of quotes.
    name = shlex.split(options)[0].removeprefix("-XX:ArchiveClassesAtExit=")
    code = f"open({name!r}, 'w').close(); raise SystemExit({status})"
    archive.wait_for(subprocess.Popen([sys.executable, "-c", code]))


@pytest.mark.usefixtures("processes")
def test_the_classes_of_one_jvm_are_there_for_the_next(tmp_path: Path, java_home: Path) -> None:
    archive = _archive(tmp_path, java_home)
    assert archive.options_to_read() == ""
    _end(archive, archive.options_to_write(), status=0)
    again = _archive(tmp_path, java_home)
    (file,) = (tmp_path / "cache of a person").iterdir()
    assert shlex.split(again.options_to_read())[0] == f"-XX:SharedArchiveFile={file}"
    assert again.options_to_write() == ""


@pytest.mark.usefixtures("processes")
def test_a_jvm_that_fails_or_is_not_waited_for_leaves_nothing(
    tmp_path: Path, java_home: Path
) -> None:
    archive = _archive(tmp_path, java_home)
    _end(archive, archive.options_to_write(), status=1)
    assert archive.options_to_write() != ""
    archive.give_up()
    assert archive.options_to_read() == ""
    assert not list((tmp_path / "cache of a person").iterdir())


def test_a_java_without_an_archive_of_its_own_writes_none(tmp_path: Path) -> None:
    assert _archive(tmp_path, tmp_path / "bare").options_to_write() == ""
