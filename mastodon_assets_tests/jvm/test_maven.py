"""Jars are whole or absent, with an Ivy that fails the way networks and disks make it fail."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mastodon_assets.embedded import kafka
from mastodon_assets.jvm import maven
from mastodon_assets.jvm.maven import ArtifactError, Coordinate
from mastodon_assets.spark import session

THING = Coordinate("org.example", "thing", "1.0")


class FakeIvy:
    """Copies jars from its cache, which it fills from a network; both may hold broken ones."""

    def __init__(self, cache: Path, *, failure: str | None = None) -> None:
        self.cached = cache / "ivy" / "org.example" / "thing" / "jars" / "thing-1.0.jar"
        self.network: Callable[[Path], None] = write_jar
        self.failure = failure
        self.runs = 0

    def run(self, _coordinates: object, target: Path, _cache: Path) -> str | None:
        self.runs += 1
        if self.failure:
            return self.failure
        if not self.cached.exists():
            self.cached.parent.mkdir(parents=True, exist_ok=True)
            self.network(self.cached)
        (target / "thing-1.0.jar").write_bytes(self.cached.read_bytes())
        return None


def write_jar(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as jar:
        jar.writestr("Thing.class", bytes(range(256)) * 400)


def write_half_a_jar(path: Path) -> None:
    write_jar(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_damaged_jar(path: Path) -> None:
    write_jar(path)
    content = bytearray(path.read_bytes())
    content[60:80] = b"\xff" * 20
    path.write_bytes(content)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return maven.cache_dir()


@pytest.fixture
def ivy(cache: Path, monkeypatch: pytest.MonkeyPatch) -> FakeIvy:
    fake = FakeIvy(cache)
    monkeypatch.setattr(maven, "_run_ivy", fake.run)
    monkeypatch.setattr(maven, "_check_pinned", lambda _folder: None)
    return fake


def fetch() -> Path:
    return maven.fetch_jars("thing-1.0", [THING], size="1 kB", report=lambda _line: None)


def test_what_is_there_and_whole_is_not_fetched_again(ivy: FakeIvy) -> None:
    assert fetch() == fetch()
    assert ivy.runs == 1


def test_what_is_there_and_whole_is_used_where_nothing_can_be_written(
    ivy: FakeIvy, cache: Path
) -> None:
    folder = fetch()
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in (folder, *folder.iterdir()))
    lock = cache / "fetch.lock"
    lock.unlink(missing_ok=True)
    # Stands for a read-only disk, which root does not meet by permissions.
    lock.mkdir()
    assert fetch() == folder
    assert ivy.runs == 1


@pytest.mark.parametrize("damage", [write_half_a_jar, write_damaged_jar])
def test_a_broken_jar_in_the_cache_is_fetched_once_more(
    ivy: FakeIvy, damage: Callable[[Path], None]
) -> None:
    ivy.cached.parent.mkdir(parents=True)
    damage(ivy.cached)
    folder = fetch()
    assert maven.broken_jars(folder) == []
    assert ivy.runs == 2


def test_a_jar_that_arrives_damaged_twice_is_named_and_leaves_nothing(
    ivy: FakeIvy, cache: Path
) -> None:
    ivy.network = write_half_a_jar
    with pytest.raises(ArtifactError, match=r"\Athing-1.0.jar arrived damaged twice; .*\Z"):
        fetch()
    assert ivy.runs == 2
    assert not [path for path in cache.iterdir() if "thing" in path.name]


@pytest.mark.parametrize("damage", [write_half_a_jar, Path.unlink])
def test_a_jar_that_broke_or_vanished_after_it_was_fetched_is_replaced(
    ivy: FakeIvy, damage: Callable[[Path], None]
) -> None:
    jar = fetch() / "thing-1.0.jar"
    damage(jar)
    fetch()
    assert maven.broken_jars(jar.parent) == []
    assert jar.exists()


def test_what_a_killed_fetch_left_is_no_jar_folder_and_is_cleared_away(
    ivy: FakeIvy, cache: Path
) -> None:
    left = cache / ".thing-1.0.abc"
    left.mkdir()
    (cache / "thing-1.0").mkdir()
    write_half_a_jar(cache / "thing-1.0" / "thing-1.0.jar")
    folder = fetch()
    assert maven.broken_jars(folder) == []
    assert not left.exists()


def test_without_network_the_error_is_one_line_and_a_cache_that_may_be_the_cause_is_tried_again(
    ivy: FakeIvy,
) -> None:
    ivy.cached.parent.mkdir(parents=True)
    ivy.failure = "could not fetch"
    with pytest.raises(ArtifactError, match=r"\Acould not fetch\Z"):
        fetch()
    assert ivy.runs == 2
    assert not ivy.cached.parent.exists()


def test_a_jar_that_is_not_the_tested_one_is_not_used(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maven, "_run_ivy", FakeIvy(cache).run)
    for pinned in ({"thing-1.0.jar": "0" * 64}, {}):
        monkeypatch.setattr(maven, "_pinned", lambda pinned=pinned: pinned)
        with pytest.raises(ArtifactError, match="is not the file that this version was tested"):
            fetch()


def test_every_jar_that_we_name_is_pinned() -> None:
    named = [*kafka.JARS, *kafka.TOOLS, *session.CONNECTORS, *session.OBJECT_STORE]
    missing = {f"{each.name}-{each.revision}.jar" for each in named} - maven._pinned().keys()
    assert not missing, (
        f"{sorted(missing)}: add the lines of the .manifest of its folder in the cache to"
        " mastodon_assets/jvm/jars.sha256, and remove those of the version before"
    )


@pytest.mark.usefixtures("processes")
def test_the_real_ivy_names_the_unreachable_network_in_one_line(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = "-Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=9"
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", nowhere)
    with pytest.raises(ArtifactError) as raised:
        maven.fetch_jars("x", [THING], size="1 kB", report=lambda _line: None)
    message = str(raised.value)
    assert message.startswith("could not fetch x; check the network")
    assert "Connection refused" in message
    assert str(cache / "ivy.log") in message
    assert "\n" not in message
