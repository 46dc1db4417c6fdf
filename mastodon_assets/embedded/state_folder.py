"""Files that are whole or absent, and whose they are.

What belongs here: writing and checking files for the rest of this folder. What does not: what the
files mean.
"""

import os
import tempfile
from pathlib import Path

from mastodon_assets.errors import PlatformError


class StateFolderError(PlatformError):
    """The state folder cannot be used by the one who asks."""


class StateDamagedError(PlatformError):
    """A file that `up` wrote to the state folder is gone or changed."""


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


def make_private_folder(folder: Path) -> None:
    """Make `folder` with mode 700, or check that it is the caller's own and make it so.

    Raises: StateFolderError where it is no folder, belongs to another user or cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_own(folder)
        folder.chmod(0o700)
    except OSError as error:
        raise StateFolderError(
            f"cannot use {folder} as state folder ({error.strerror}); "
            "set MASTODON_ASSETS_HOME to a folder of your own"
        ) from error


def check_own(folder: Path) -> None:
    """Raises: StateFolderError where `folder` belongs to another user."""
    owner = folder.stat().st_uid
    if owner != os.geteuid():
        raise StateFolderError(
            f"{folder} belongs to another user (uid {owner}); run as that user or set "
            "MASTODON_ASSETS_HOME to a folder of your own"
        )


def read_text(path: Path) -> str | None:
    """The text of `path` without white space around it; None where there is no such file."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None


def last_telling_line(log: Path, start: int = 0) -> str:
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
