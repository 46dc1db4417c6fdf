"""The programs of the embedded stack: fetched once, whole or absent, shared by all state folders.

What belongs here: the user's cache folder, Ivy, and the check that what lies there is what was put
there. What does not: what is done with the jars.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
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
    """A jar could not be fetched, or not whole."""


class Coordinate(NamedTuple):
    """What names a jar in a Maven repository."""

    organisation: str
    name: str
    revision: str


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/mastodon_assets`, else `~/.cache/mastodon_assets`; made if absent."""
    base = os.environ.get("XDG_CACHE_HOME")
    cache = (Path(base) if base else Path.home() / ".cache").absolute() / "mastodon_assets"
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtifactError(
            f"cannot make the cache folder {cache} ({error.strerror}); set XDG_CACHE_HOME to a "
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
) -> Path:
    """The folder `folder_name` of the cache with the jars of `coordinates` and what they need.

    `size` tells in `report` what the first fetch means, such as "43 MB, about half a minute";
    nothing of the organisations `excluded` is fetched.
    Raises: ArtifactError, JavaNotFoundError.
    """
    cache = cache_dir()

    def fetch(target: Path) -> None:
        report(f"fetching {folder_name} ({size}, once)")
        _fetch_whole(_ivy_module(coordinates, excluded), target, cache)

    return provide(cache / folder_name, fetch, lock=cache / "fetch.lock")


def provide(folder: Path, fill: Callable[[Path], None], *, lock: Path) -> Path:
    """`folder` as `fill` made it: taken as it is where it is whole, else made anew.

    `fill` is given an empty folder beside it, which takes its name when all is there.
    """
    # Where it is whole nothing is written, so that a cache may lie on a read-only disk.
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
            # Readable by all, as the folder is: in an image root makes it and others use it.
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
    """Whether `folder` holds, to the bit, what its manifest says."""
    try:
        return (folder / MANIFEST).read_text(encoding="utf-8") == _manifest(folder)
    except FileNotFoundError:
        # Never made, or being replaced by another process this moment.
        return False


def _manifest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return "".join(f"{_sha256(path)}  {path.relative_to(folder)}\n" for path in files)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch_whole(module: str, target: Path, cache: Path) -> None:
    """Fetch into `target`; what is broken in Ivy's own cache is removed and fetched once more."""
    ivy_cache = cache / "ivy"
    had_cache = ivy_cache.exists()
    failure = _run_ivy(module, target, cache)
    if failure and had_cache:
        # A description without its jar, or half of one, makes Ivy fail for ever.
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
            f"{broken[0].name} arrives broken, twice; look at proxy and disk, then run again"
        )


def broken_jars(folder: Path) -> list[Path]:
    """The jars in `folder` that are no whole archives."""
    return [jar for jar in sorted(folder.glob("*.jar")) if not _is_whole_archive(jar)]


def _is_whole_archive(jar: Path) -> bool:
    try:
        with zipfile.ZipFile(jar) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError):
        return False


def _run_ivy(module: str, target: Path, cache: Path) -> str | None:
    """Let Ivy put the jars into `target`; None, or in one line why it could not."""
    names = target.name.lstrip(".").rpartition(".")[0]
    with tempfile.TemporaryDirectory() as folder:
        module_file = Path(folder, "ivy.xml")
        module_file.write_text(module, encoding="utf-8")
        command = [
            str(java_home(cache) / "bin" / "java"),
            # Without these a network that swallows packets holds Ivy for ever.
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
                return f"fetching {names} took more than half an hour; look at {log}, run again"
    if status == 0:
        return None
    return (
        f"could not fetch {names}; look at the network (a proxy goes into JAVA_TOOL_OPTIONS, as "
        f"-Dhttps.proxyHost=…) and run again: {last_error_line(log)} (log: {log})"
    )


def _ivy_module(coordinates: Sequence[Coordinate], excluded: Sequence[str]) -> str:
    dependencies = "".join(
        f"<dependency org={quoteattr(coordinate.organisation)} name={quoteattr(coordinate.name)} "
        f'rev={quoteattr(coordinate.revision)} conf="default"/>'
        for coordinate in coordinates
    )
    exclusions = "".join(f"<exclude org={quoteattr(name)}/>" for name in excluded)
    return (
        '<ivy-module version="2.0"><info organisation="mastodon_assets" module="local"/>'
        f"<dependencies>{dependencies}{exclusions}</dependencies></ivy-module>"
    )


def _ivy_jar() -> Path:
    spec = find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise ArtifactError("PySpark is not installed; run: pip install mastodon-assets")
    jars = sorted(Path(spec.origin).parent.glob("jars/ivy-*.jar"))
    if not jars:
        raise ArtifactError(f"PySpark in {Path(spec.origin).parent} has no jars/ivy-*.jar")
    return jars[-1]
