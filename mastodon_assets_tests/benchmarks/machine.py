"""The machine that a benchmark ran on, for the record of its numbers."""

import os
import platform
import subprocess
from importlib.metadata import version

import psutil
import psycopg
from pydantic import SecretStr

from mastodon_assets.jvm.java import java_home
from mastodon_assets.jvm.maven import cache_dir

_PACKAGES = ("pyspark", "pyarrow", "msgspec", "psycopg", "pgpq")


def machine(postgres_url: SecretStr) -> dict[str, object]:
    """Cores, memory, versions, and the load of others before the benchmark began its work."""
    with psycopg.connect(postgres_url.get_secret_value()) as connection:
        postgres = connection.info.parameter_status("server_version")
    java = subprocess.run(
        [str(java_home(cache_dir()) / "bin" / "java"), "--version"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()[0]
    return {
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "system": platform.platform(),
        "python": platform.python_version(),
        "java": java,
        "postgresql": postgres,
        **{name: version(name) for name in _PACKAGES},
        "load": round(os.getloadavg()[0], 2),
    }
