"""Jars from Maven, fetched once into a cache that all state folders share.

What belongs here: the user's cache folder, Ivy, and the check that a folder of the cache is
complete and unchanged.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import quoteattr

from filelock import FileLock

from mastodon_assets.errors import PlatformError
from mastodon_assets.files import last_error_line, write_atomically
from mastodon_assets.jvm.java import java_home

MANIFEST = ".manifest"
Report = Callable[[str], None]


class ArtifactError(PlatformError):
    """A jar could not be fetched, or arrived damaged."""


class Coordinate(NamedTuple):
    """The name of a jar in a Maven repository."""

    organisation: str
    name: str
    revision: str


def cache_dir() -> Path:
    """Return `$XDG_CACHE_HOME/mastodon_assets` or `~/.cache/mastodon_assets`; create it if absent.

    Raises:
        ArtifactError: It cannot be created.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    cache = (Path(base) if base else Path.home() / ".cache").absolute() / "mastodon_assets"
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtifactError(
            f"cannot create the cache folder {cache} ({error.strerror}); set XDG_CACHE_HOME to a "
            "folder of your own"
        ) from error
    return cache


def fetch_jars(
    folder_name: str,
    coordinates: Sequence[Coordinate],
    *,
    size: str,
    report: Report,
    excluded: Sequence[str] = (),
    transitive: bool = True,
) -> Path:
    """Return a folder of the cache with the jars of `coordinates` and their dependencies.

    Args:
        folder_name: Name of the folder.
        coordinates: The jars.
        size: Shown by `report` before the first fetch, such as "43 MB, about half a minute".
        report: Gets a line before jars are fetched.
        excluded: What is not fetched: organisations, or single artifacts as `organisation:name`.
        transitive: Whether to fetch their dependencies as well.

    Raises:
        ArtifactError: A jar cannot be fetched.
        JavaNotFoundError: There is no Java to run Ivy.
    """
    cache = cache_dir()

    def fetch(target: Path) -> None:
        report(f"fetching {folder_name} ({size}, once)")
        _fetch_whole(_ivy_module(coordinates, excluded, transitive), target, cache)
        _check_pinned(target)

    return provide(cache / folder_name, fetch, lock=cache / "fetch.lock")


def provide(folder: Path, fill: Callable[[Path], None], *, lock: Path) -> Path:
    """Return `folder`, filled by `fill` unless it is complete.

    `fill` gets an empty folder next to it, which is renamed when it is complete.
    """
    # For a complete folder nothing is written, so that a cache may be on a read-only disk.
    if is_whole(folder):
        return folder
    with FileLock(lock):
        if is_whole(folder):
            return folder
        for left in folder.parent.glob(f".{folder.name}.*"):
            shutil.rmtree(left)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            fill(partial)
            # Readable by all, like the folder: in an image root creates it and others use it.
            write_atomically(partial / MANIFEST, _manifest(partial), mode=0o644)
            partial.chmod(0o755)
            if folder.exists():
                shutil.rmtree(folder)
            partial.rename(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    return folder


def is_whole(folder: Path) -> bool:
    """Return whether the files of `folder` are exactly those of its manifest."""
    try:
        return (folder / MANIFEST).read_text(encoding="utf-8") == _manifest(folder)
    except FileNotFoundError:
        # It was never filled, or another process is replacing it.
        return False


def _manifest(folder: Path) -> str:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return "".join(f"{_sha256(path)}  {path.relative_to(folder)}\n" for path in paths)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch_whole(module: str, target: Path, cache: Path) -> None:
    """Fetch into `target`; damaged files of Ivy's own cache are removed and fetched again."""
    ivy_cache = cache / "ivy"
    had_cache = ivy_cache.exists()
    failure = _run_ivy(module, target, cache)
    if failure and had_cache:
        # A description without its jar, or half of one, makes Ivy fail each time.
        shutil.rmtree(ivy_cache)
        failure = _run_ivy(module, target, cache)
    if failure:
        raise ArtifactError(failure)
    broken = broken_jars(target)
    if not broken:
        return
    for jar in broken:
        jar.unlink()
        for cached in ivy_cache.rglob(jar.name):
            cached.unlink()
    failure = _run_ivy(module, target, cache)
    if failure:
        raise ArtifactError(failure)
    broken = broken_jars(target)
    if broken:
        raise ArtifactError(
            f"{broken[0].name} arrived damaged twice; check proxy and disk, then run again"
        )


def _check_pinned(folder: Path) -> None:
    """Check that the jars are those that this version was tested with.

    Raises:
        ArtifactError: A jar is another one.
    """
    pinned = _pinned()
    for jar in sorted(folder.glob("*.jar")):
        if pinned.get(jar.name) != _sha256(jar):
            raise ArtifactError(
                f"{jar.name} is not the file that this version was tested with, and is not used;"
                " check where it comes from (a proxy or mirror?), then run again"
            )


def _pinned() -> dict[str, str]:
    """Return the SHA-256 of each known jar by its name."""
    text = files("mastodon_assets.jvm").joinpath("jars.sha256").read_text("ascii")
    lines = (line.split() for line in text.splitlines() if not line.startswith("#"))
    return {name: digest for digest, name in lines}


def broken_jars(folder: Path) -> list[Path]:
    """List the jars in `folder` that are damaged."""
    return [jar for jar in sorted(folder.glob("*.jar")) if not _is_whole_archive(jar)]


def _is_whole_archive(jar: Path) -> bool:
    try:
        with zipfile.ZipFile(jar) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError):
        return False


def _run_ivy(module: str, target: Path, cache: Path) -> str | None:
    """Let Ivy put the jars into `target`; return None, or one line with the reason of failure."""
    names = target.name.lstrip(".").rpartition(".")[0]
    with tempfile.TemporaryDirectory() as folder:
        module_file = Path(folder, "ivy.xml")
        module_file.write_text(module, encoding="utf-8")
        command = [
            str(java_home(cache) / "bin" / "java"),
            # Without these Ivy waits forever on a network that drops packets.
            "-Dsun.net.client.defaultConnectTimeout=20000",
            "-Dsun.net.client.defaultReadTimeout=60000",
            *("-jar", str(_ivy_jar())),
            *("-ivy", str(module_file)),
            *("-confs", "default"),
            *("-types", "jar", "bundle"),
            *("-cache", str(cache / "ivy")),
            *("-retrieve", f"{target}/[artifact]-[revision].[ext]"),
        ]
        log = cache / "ivy.log"
        with log.open("wb") as output:
            try:
                status = subprocess.run(
                    command,
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=1800,
                ).returncode
            except subprocess.TimeoutExpired:
                return f"fetching {names} took more than half an hour; see {log}, then run again"
    if status == 0:
        return None
    return (
        f"could not fetch {names}; check the network (a proxy goes into JAVA_TOOL_OPTIONS, as "
        f"-Dhttps.proxyHost=…) and run again: {last_error_line(log)} (log: {log})"
    )


def _ivy_module(
    coordinates: Sequence[Coordinate], excluded: Sequence[str], transitive: bool
) -> str:
    dependencies = "".join(
        f"<dependency org={quoteattr(coordinate.organisation)} name={quoteattr(coordinate.name)} "
        f'rev={quoteattr(coordinate.revision)} conf="default"'
        f' transitive="{str(transitive).lower()}"/>'
        for coordinate in coordinates
    )
    exclusions = "".join(map(_exclusion, excluded))
    return (
        '<ivy-module version="2.0"><info organisation="mastodon_assets" module="local"/>'
        f"<dependencies>{dependencies}{exclusions}</dependencies></ivy-module>"
    )


def _exclusion(text: str) -> str:
    organisation, _, name = text.partition(":")
    return f"<exclude org={quoteattr(organisation)} module={quoteattr(name or '*')}/>"


def _ivy_jar() -> Path:
    spec = find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise ArtifactError("PySpark is not installed; run: pip install pyspark==4.2.0")
    jars = sorted(Path(spec.origin).parent.glob("jars/ivy-*.jar"))
    if not jars:
        raise ArtifactError(f"PySpark in {Path(spec.origin).parent} has no jars/ivy-*.jar")
    return jars[-1]
