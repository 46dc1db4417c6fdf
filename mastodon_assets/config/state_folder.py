"""The state folder (MASTODON_ASSETS_HOME): its owner, and whether a demo created it.

What belongs here: checks of the folder itself. The embedded stack's files in it are in `embedded`.
"""

import logging
import os
from pathlib import Path

from mastodon_assets.errors import PlatformError

logger = logging.getLogger(__name__)

# This file marks a folder that a demo created. The next demo may wipe it.
DEMO_MARKER = "demo"
# The key of the suppression list, written once and kept as long as the data.
SUPPRESSION_KEY_FILE = "withdrawn.key"


class StateFolderError(PlatformError):
    """Raised if this user cannot use the state folder."""


class StateDamagedError(PlatformError):
    """Raised if a file that `up` wrote to the state folder is missing or changed."""


def make_private_folder(folder: Path) -> None:
    """Create `folder` with mode 700, or set that mode on a folder of the caller.

    Raises:
        StateFolderError: It is no folder, belongs to another user, or cannot be created.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_own(folder)
        folder.chmod(0o700)
    except OSError as error:
        raise StateFolderError(
            f"cannot use {folder} as the state folder ({error.strerror}); "
            "set MASTODON_ASSETS_HOME to a folder of your own"
        ) from error


def check_own(folder: Path) -> None:
    """Check that `folder` belongs to the caller.

    Raises:
        StateFolderError: It belongs to another user.
    """
    owner = folder.stat().st_uid
    if owner != os.geteuid():
        raise StateFolderError(
            f"{folder} belongs to another user (uid {owner}); run as that user or set "
            "MASTODON_ASSETS_HOME to a folder of your own"
        )


def keep_from_demos(home: Path) -> None:
    """Remove the demo's mark: the folder holds other data, and the next demo must not wipe it."""
    marker = home / DEMO_MARKER
    if not marker.exists():
        return
    logger.warning(
        "%s holds the posts of a demo, and tables and charts count them with those that are read"
        " now; to start without them: mastodon-assets down --wipe, then mastodon-assets up",
        home.absolute(),
    )
    marker.unlink(missing_ok=True)
