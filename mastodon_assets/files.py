"""Files that are whole or absent, and what a tool's log says last."""

import os
import tempfile
from pathlib import Path


def write_atomically(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Write `text` to `path` so that a reader sees the old or the new file, never a part."""
    descriptor, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(partial, mode)
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def read_text(path: Path) -> str | None:
    """The text of `path` without white space around it; None where there is no such file."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None


def last_error_line(log: Path, start: int = 0) -> str:
    """The last line of `log` from byte `start` that names a failure, else its last; '' for none."""
    try:
        with log.open("rb") as file:
            file.seek(max(start, log.stat().st_size - 65_536))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    failures = [line for line in lines if _names_failure(line)]
    return (failures or lines or [""])[-1][:300]


def _names_failure(line: str) -> bool:
    is_stack_frame = line.startswith(("at ", "... "))
    return not is_stack_frame and any(
        word in line for word in ("ERROR", "FATAL", "Exception", "error:")
    )
