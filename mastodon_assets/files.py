"""Files: atomic writes, and the line of a log that says why a tool failed."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

# Permissions of a file that only its owner may read.
PRIVATE = 0o600


@contextmanager
def atomic_file(
    path: Path, open_mode: str = "w", *, mode: int | None = PRIVATE
) -> Iterator[IO[Any]]:
    """Open a file for writing that takes the name `path` only when it is complete.

    Readers see the old or the new file, never a part. If the block raises, `path` is unchanged.

    Args:
        path: The file to write; its folder must exist.
        open_mode: "w" for text in UTF-8 with line ends as written, "wb" for bytes.
        mode: Permissions of the file; None for those that the process gives by default.

    Raises:
        OSError: The file cannot be written.
    """
    encoding, newline = (None, None) if "b" in open_mode else ("utf-8", "")
    # In the same folder, because a rename is atomic only within one file system.
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    permissions = 0o666 if mode is None else mode & PRIVATE
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, permissions)
    try:
        with os.fdopen(descriptor, open_mode, encoding=encoding, newline=newline) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            partial.chmod(mode)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes, *, mode: int | None = PRIVATE) -> None:
    """Write `content` to `path` as a whole: readers see the old or the new file, never a part.

    Args:
        path: The file to write; its folder must exist.
        content: Text (written as UTF-8) or bytes.
        mode: Permissions of the file; None for those that the process gives by default.

    Raises:
        OSError: The file cannot be written.
    """
    with atomic_file(path, "wb", mode=mode) as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)


def read_text(path: Path) -> str | None:
    """Return the text of `path` without surrounding white space; None if there is no such file."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None


def last_error_line(log: Path, start: int = 0) -> str:
    """Return the last line of `log` that names a failure.

    Args:
        log: The log file.
        start: Byte at which to begin.

    Returns:
        At most 300 characters. The last line if none names a failure; empty if there is no line.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(start, log.stat().st_size - 65_536))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    failures = [line for line in lines if names_failure(line)]
    return (failures or lines or [""])[-1][:300]


def names_failure(line: str) -> bool:
    """Return whether a line of a log names a failure, and is not a frame of a stack trace."""
    is_stack_frame = line.startswith(("at ", "... "))
    return not is_stack_frame and any(
        word in line for word in ("ERROR", "FATAL", "Exception", "error:")
    )
