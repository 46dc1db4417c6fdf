"""A PostgreSQL server of the embedded stack, whichever data folder it serves.

What belongs here: what the server of a state folder and the two of an upgrade have in common.
"""

from collections.abc import Sequence
from pathlib import Path

import psycopg


def server_command(programs: Path, data: Path, options: Sequence[str]) -> list[str]:
    """Return the command that serves a data folder with options `name=value`."""
    return [
        *(str(programs / "postgres"), "-D", str(data)),
        *(part for option in options for part in ("-c", option)),
    ]


def can_log_in(url: str) -> bool:
    """Return whether the user of the URL can log in; the URL's own database may not exist yet."""
    try:
        psycopg.connect(url, dbname="postgres", connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True
