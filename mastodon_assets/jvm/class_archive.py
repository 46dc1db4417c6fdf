"""The class archive: Spark's classes in a file that the JVM maps, which halves its start time.

What belongs here: the file in the user's cache, and the JVM's options to write and read it (class
data sharing, JEP 350). The JVM checks that the file is of its version and of the same jars, and
ignores it otherwise. Only classes of the class path are archived.
"""

import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from typing import Any

_SILENT = "-Xlog:cds*=off"
_SECONDS_TO_WRITE = 120
_SECONDS_TO_FORGET = 86_400


class ClassArchive:
    """The archive of one Java and one class path."""

    def __init__(self, cache: Path, java_home: Path, sources: Sequence[Path]) -> None:
        """Find the archive.

        Args:
            cache: The folder of the archive.
            java_home: The Java that uses it.
            sources: The jars, or folders of jars.
        """
        self._base = java_home / "lib" / "server" / "classes.jsa"
        parts = [
            f"{path} {path.stat().st_mtime_ns}"
            for path in (java_home, self._base, *sources)
            if path.exists()
        ]
        key = sha256("\n".join(parts).encode()).hexdigest()[:16]
        self._file = cache / f"spark-classes-{key}.jsa"
        self._partial: Path | None = None

    @property
    def is_being_written(self) -> bool:
        """Whether a JVM was started with the options to write it."""
        return self._partial is not None

    def options_to_read(self) -> str:
        """Return the JVM's options to use the file; empty if there is none."""
        return _options("SharedArchiveFile", self._file) if self._file.exists() else ""

    def options_to_write(self) -> str:
        """Return the JVM's options to write the file when it ends.

        They are empty if there is a file already, or if this Java has no archive to build on.
        """
        cache = self._file.parent
        if self._file.exists() or not self._base.exists() or not os.access(cache, os.W_OK):
            return ""
        self._remove_leftovers()
        folder = tempfile.mkdtemp(prefix=f".{self._file.stem}.", dir=cache)
        self._partial = Path(folder, self._file.name)
        return _options("ArchiveClassesAtExit", self._partial)

    def wait_for(self, jvm: "Popen[Any]") -> None:
        """Wait until a JVM that is ending has written the file, if it can."""
        assert self._partial is not None, "the JVM needs the options to write it"
        with suppress(TimeoutExpired):
            if jvm.wait(_SECONDS_TO_WRITE) == 0:
                self.keep()
        self.give_up()

    def keep(self) -> None:
        """Use from now on what a JVM that has ended has written, if anything."""
        if self._partial is not None and self._partial.exists():
            self._partial.replace(self._file)

    def give_up(self) -> None:
        """Remove the unfinished file of a JVM that is not waited for."""
        if self._partial is not None:
            shutil.rmtree(self._partial.parent)
        self._partial = None

    def _remove_leftovers(self) -> None:
        # They are of processes that were killed: writing takes much less than a day.
        for left in self._file.parent.glob(f".{self._file.stem}.*"):
            if time.time() - left.stat().st_mtime > _SECONDS_TO_FORGET:
                shutil.rmtree(left, ignore_errors=True)


def _options(name: str, file: Path) -> str:
    # Spark splits options at spaces, except in quotes.
    return f"{shlex.quote(f'-XX:{name}={file}')} {_SILENT}"
