"""Files and folders that the executors reach too: named by a URI, through Hadoop's file system.

What belongs here: `StoragePath`, a `Path` or what stands for one at `file:`, `hdfs:`, `s3a:` and so
on, with the few operations of `Path` that we use. Whoever names a location by `file:` says that
it is one disk for this process and all executors.
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
    """A file or folder at a URI; as `Path`, it raises OSError where something goes wrong."""

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
        return PurePosixPath(self._uri).name

    @property
    def suffix(self) -> str:
        return PurePosixPath(self._uri).suffix

    def absolute(self) -> "HadoopPath":
        return self

    def as_uri(self) -> str:
        return self._uri

    def exists(self) -> bool:
        return bool(self._ask(lambda files, path: files.exists(path)))

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        self._ask(lambda files, path: files.mkdirs(path))

    def open(self, mode: str = "rb") -> IO[bytes]:
        """The content, copied here first: bytes through py4j would take a hundred times as long."""
        assert mode == "rb", "nobody writes this way"
        with tempfile.TemporaryDirectory(prefix="mastodon_assets-") as folder:
            copy = Path(folder) / "copy"
            self._ask(lambda files, path: files.copyToLocalFile(False, path, _local(copy), True))
            # The name goes with the folder; what is open stays readable.
            return copy.open("rb")

    def read_bytes(self) -> bytes:
        with self.open() as file:
            return file.read()

    def read_text(self, encoding: str) -> str:
        return self.read_bytes().decode(encoding)

    def write_bytes(self, content: bytes) -> None:
        with tempfile.NamedTemporaryFile(prefix="mastodon_assets-") as copy:
            copy.write(content)
            copy.flush()
            local = _local(Path(copy.name))
            self._ask(lambda files, path: files.copyFromLocalFile(False, True, local, path))

    def write_text(self, text: str, encoding: str) -> None:
        self.write_bytes(text.encode(encoding))

    def rename(self, target: object) -> None:
        renamed = self._ask(lambda files, path: files.rename(path, _hadoop(str(target))))
        if not renamed:
            raise OSError(f"{self} cannot be renamed to {target}")

    def glob(self, pattern: str) -> "Iterator[HadoopPath]":
        found = self._ask(lambda files, path: files.globStatus(_hadoop(f"{path}/{pattern}")))
        for status in found or ():
            yield HadoopPath(str(status.getPath().toString()), self._settings)

    def remove_tree(self) -> None:
        self._ask(lambda files, path: files.delete(path, True))

    def file_sizes(self) -> dict[str, int]:
        """Bytes of the files below, by relative path."""
        found = self._ask(lambda files, path: files.listFiles(path, True))
        root = self._ask(lambda files, path: files.makeQualified(path).toString())
        sizes = {}
        while found.hasNext():
            status = found.next()
            sizes[str(status.getPath().toString()).removeprefix(f"{root}/")] = int(status.getLen())
        return sizes

    def _ask(self, question: Any) -> Any:
        from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]

        jvm = start_jvm(self._settings)
        try:
            path = _hadoop(self._uri)
            configuration = jvm.org.apache.spark.deploy.SparkHadoopUtil.get().newConfiguration(
                jvm.org.apache.spark.SparkConf()
            )
            return question(path.getFileSystem(configuration), path)
        except Py4JJavaError as error:
            reason = str(error.java_exception.toString()).splitlines()[0]
            raise OSError(f"{self}: {reason}") from error


StoragePath = Path | HadoopPath


def storage_path(settings: Settings, name: Path | str) -> StoragePath:
    """What a setting or a row of the database names."""
    return HadoopPath(str(name), settings) if is_uri(name) else Path(name)


def for_executors(settings: Settings, variable: str, name: Path | str) -> StoragePath:
    """As `storage_path`, for what executors read or write too.

    Raises: SettingsError for a local path where they do not share this process's disk.
    """
    if not is_uri(name) and not shares_our_disk(settings):
        raise SettingsError(
            f"{variable}={name}: is on this machine's disk, which the executors of"
            f" {shown_master(settings)} do not share; allowed: a URI such as hdfs://… or s3a://…,"
            " or file:///… for a folder that all of them have mounted"
        )
    return storage_path(settings, name)


def remove_tree(place: StoragePath) -> None:
    """Remove the folder and all in it."""
    if isinstance(place, HadoopPath):
        place.remove_tree()
    else:
        shutil.rmtree(place)


def rename(place: StoragePath, target: StoragePath) -> None:
    """Give the folder another name beside its own; on an object store that is a copy."""
    if isinstance(place, HadoopPath):
        place.rename(target)
    else:
        place.rename(str(target))


def file_sizes(folder: StoragePath) -> dict[str, int]:
    """Bytes of the files below, by relative path; empty where there is no folder."""
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

    jvm: Any = SparkContext._jvm
    return jvm.org.apache.hadoop.fs.Path(uri)
