"""Spark's classes as the JVM has them in memory, kept in a file: it starts in half the time.

What belongs here: the file in the user's cache, and the JVM's options to write and to read it
(class data sharing, JEP 350). The JVM looks itself whether the file is of its own version and of
the same jars, and goes without it where it is not. It takes in no class but of its class path.
"""

import os
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
    """The archive of one Java and one class path; `options` are for a JVM about to start."""

    def __init__(self, cache: Path, java_home: Path, sources: Sequence[Path]) -> None:
        """`cache` is the folder it is kept in; `sources` are the jars, or folders of them."""
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
        """The JVM's options to use the file; empty where there is none."""
        return f"-XX:SharedArchiveFile={self._file} {_SILENT}" if self._file.exists() else ""

    def options_to_write(self) -> str:
        """The JVM's options to make the file as it ends.

        Empty where there is one already, or this Java has no archive of its own to build on.
        """
        cache = self._file.parent
        if self._file.exists() or not self._base.exists() or not os.access(cache, os.W_OK):
            return ""
        self._remove_what_others_left()
        folder = tempfile.mkdtemp(prefix=f".{self._file.stem}.", dir=cache)
        self._partial = Path(folder, self._file.name)
        return f"-XX:ArchiveClassesAtExit={self._partial} {_SILENT}"

    def wait_for(self, jvm: "Popen[Any]") -> None:
        """Wait until a JVM that was told to end has written the file, if it can."""
        assert self._partial is not None, "only of a JVM with the options to write it"
        with suppress(TimeoutExpired):
            if jvm.wait(_SECONDS_TO_WRITE) == 0 and self._partial.exists():
                self._partial.replace(self._file)
        self.give_up()

    def give_up(self) -> None:
        """Leave no file of a JVM that is not waited for."""
        if self._partial is not None:
            shutil.rmtree(self._partial.parent)
        self._partial = None

    def _remove_what_others_left(self) -> None:
        # A process that was killed. One that is at work writes for less than that.
        for left in self._file.parent.glob(f".{self._file.stem}.*"):
            if time.time() - left.stat().st_mtime > _SECONDS_TO_FORGET:
                shutil.rmtree(left, ignore_errors=True)
