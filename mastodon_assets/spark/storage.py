"""Storage paths: files and folders that executors can reach too.

What belongs here: `StoragePath`, which is a `Path` or a URI (`file:`, `s3a:` and so on) of Hadoop's
file systems, with the few operations of `Path` that we use. A URI with `file:` promises
that this process and all executors have the folder mounted.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from mastodon_assets.config.settings import Settings, is_uri
from mastodon_assets.errors import SettingsError
from mastodon_assets.spark.session import shares_our_disk, shown_master, start_jvm


class HadoopPath:
    """A file or folder at a URI. Like `Path`, it raises OSError on failure."""

    def __init__(self, uri: str, settings: Settings) -> None:
        self._uri = uri.rstrip("/")
        self._settings = settings

    def __truediv__(self, name: str) -> "HadoopPath":
        return HadoopPath(f"{self._uri}/{name}", self._settings)

    def __str__(self) -> str:
        return self._uri

    def __repr__(self) -> str:
        return f"HadoopPath({self._uri!r})"

    @property
    def name(self) -> str:
        """The last part of the path."""
        return PurePosixPath(self._uri).name

    @property
    def suffix(self) -> str:
        """The extension of the name, with its dot."""
        return PurePosixPath(self._uri).suffix

    def absolute(self) -> "HadoopPath":
        """Return the path itself: a URI is absolute."""
        return self

    def as_uri(self) -> str:
        """Return the URI."""
        return self._uri

    def exists(self) -> bool:
        """Return whether there is a file or folder."""
        return bool(self._ask(lambda files, path: files.exists(path)))

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:  # noqa: ARG002
        """Create the folder and its parents unless it exists; the arguments are those of Path."""
        self._ask(lambda files, path: files.mkdirs(path))

    def open(self, mode: str = "rb") -> IO[bytes]:
        """Open a local copy: reading bytes through py4j would take a hundred times as long."""
        assert mode == "rb", "files are only read this way"
        with tempfile.TemporaryDirectory(prefix="mastodon_assets-") as folder:
            copy = Path(folder) / "copy"
            self._ask(lambda files, path: files.copyToLocalFile(False, path, _local(copy), True))
            # The folder is removed; the open file stays readable.
            return copy.open("rb")

    def read_bytes(self) -> bytes:
        """Return the content."""
        with self.open() as file:
            return file.read()

    def read_text(self, encoding: str) -> str:
        """Return the content as text."""
        return self.read_bytes().decode(encoding)

    def write_bytes(self, content: bytes) -> None:
        """Write or replace the file."""
        with tempfile.NamedTemporaryFile(prefix="mastodon_assets-") as copy:
            copy.write(content)
            copy.flush()
            local = _local(Path(copy.name))
            self._ask(lambda files, path: files.copyFromLocalFile(False, True, local, path))

    def write_text(self, text: str, encoding: str) -> None:
        """Write or replace the file."""
        self.write_bytes(text.encode(encoding))

    def rename(self, target: object) -> None:
        """Rename it to another path of the same file system."""
        renamed = self._ask(lambda files, path: files.rename(path, _hadoop(str(target))))
        if not renamed:
            raise OSError(f"{self} cannot be renamed to {target}")

    def glob(self, pattern: str) -> "Iterator[HadoopPath]":
        """Yield the files and folders that match `pattern`."""
        found = self._ask(lambda files, path: files.globStatus(_hadoop(f"{path}/{pattern}")))
        for status in found or ():
            yield HadoopPath(str(status.getPath().toString()), self._settings)

    def remove_tree(self) -> None:
        """Remove the folder and everything in it."""
        self._ask(lambda files, path: files.delete(path, True))

    def file_sizes(self) -> dict[str, int]:
        """Return the bytes of all files below, by relative path."""
        found = self._ask(lambda files, path: files.listFiles(path, True))
        root = self._ask(lambda files, path: files.makeQualified(path).toString())
        sizes = {}
        while found.hasNext():
            status = found.next()
            sizes[str(status.getPath().toString()).removeprefix(f"{root}/")] = int(status.getLen())
        return sizes

    def _ask(self, operation: Any) -> Any:
        from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]

        jvm = start_jvm(self._settings)
        try:
            path = _hadoop(self._uri)
            configuration = jvm.org.apache.spark.deploy.SparkHadoopUtil.get().newConfiguration(
                jvm.org.apache.spark.SparkConf()
            )
            return operation(path.getFileSystem(configuration), path)
        except Py4JJavaError as error:
            reason = str(error.java_exception.toString()).splitlines()[0]
            raise OSError(f"{self}: {reason}") from error


StoragePath = Path | HadoopPath


def storage_path(settings: Settings, name: Path | str) -> StoragePath:
    """Return the storage path that a setting or a row of the database names."""
    return HadoopPath(str(name), settings) if is_uri(name) else Path(name)


def for_executors(settings: Settings, variable: str, name: Path | str) -> StoragePath:
    """Return a storage path that executors read or write too.

    Raises:
        SettingsError: It is a local path, and executors do not share this process's disk.
    """
    if not is_uri(name) and not shares_our_disk(settings):
        raise SettingsError(
            f"{variable}={name}: is on this machine's disk, which the executors of"
            f" {shown_master(settings)} do not share; allowed: s3a://bucket/…, or file:///… for a"
            " folder that all of them have mounted"
        )
    return storage_path(settings, name)


def remove_tree(place: StoragePath) -> None:
    """Remove a folder and everything in it."""
    if isinstance(place, HadoopPath):
        place.remove_tree()
    else:
        shutil.rmtree(place)


def rename(place: StoragePath, target: StoragePath) -> None:
    """Rename a folder within its parent; on an object store that is a copy."""
    if isinstance(place, HadoopPath):
        place.rename(target)
    else:
        place.rename(str(target))


def file_sizes(folder: StoragePath) -> dict[str, int]:
    """Return the bytes of all files below, by relative path; empty if there is no folder."""
    if isinstance(folder, HadoopPath):
        return folder.file_sizes() if folder.exists() else {}
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _local(path: Path) -> Any:
    return _hadoop(path.absolute().as_uri())


def _hadoop(uri: str) -> Any:
    from pyspark import SparkContext

    jvm: Any = SparkContext._jvm  # noqa: SLF001 - PySpark has no public name for it
    return jvm.org.apache.hadoop.fs.Path(uri)
