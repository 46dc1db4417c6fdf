"""Temporary folders of a query; what a killed process left is removed by the next one.

What belongs here: making and removing such folders. They hold texts of posts, and nobody finds
those by a purge.
"""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mastodon_assets.stream.errors import as_platform_error

# A folder exists for a moment before it is locked.
_NEW_SECONDS = 60


@contextmanager
def temporary_folder(purpose: str) -> Iterator[Path]:
    """Create a folder for temporary files, and remove it at the end.

    Folders of the same purpose whose process was killed are removed as well.

    Args:
        purpose: A word for the folder's name.

    Raises:
        TemporaryFilesError: It cannot be created.
    """
    prefix = f"mastodon_assets-{purpose}-"
    _remove_abandoned(prefix)
    try:
        folder = tempfile.TemporaryDirectory(prefix=prefix)
    except OSError as error:
        raise as_platform_error(error) from error
    with folder as name:
        # The kernel releases it when this process ends, however that is.
        lock = os.open(name, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield Path(name)
        finally:
            os.close(lock)


def _remove_abandoned(prefix: str) -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        # Those of other users cannot be opened; another process may be removing it.
        with suppress(OSError):
            if folder.stat().st_mtime > time.time() - _NEW_SECONDS:
                continue
            lock = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(lock)
