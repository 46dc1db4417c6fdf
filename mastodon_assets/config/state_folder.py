"""The state folder (MASTODON_ASSETS_HOME): whose it is, and whether a demo made it.

What belongs here: checks of the folder itself. What the embedded stack keeps there is in
`embedded`.
"""

import os
from pathlib import Path

from mastodon_assets.errors import PlatformError

# The file that marks a folder as made by a demo, which the next demo may wipe.
DEMO_MARKER = "demo"


class StateFolderError(PlatformError):
    """The state folder cannot be used by the one who asks."""


class StateDamagedError(PlatformError):
    """A file that `up` wrote to the state folder is gone or changed."""


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


def keep_from_demos(home: Path) -> None:
    """Mark that the folder now holds more than a demo's data: the next demo refuses to wipe it."""
    (home / DEMO_MARKER).unlink(missing_ok=True)
