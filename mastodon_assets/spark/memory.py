"""The memory of Spark's driver: chosen from what the machine or the container has.

What belongs here: how much memory there is, and how much of it a JVM gets. A JVM that is too small
ends with OutOfMemoryError; one that is too large takes the memory of Kafka, PostgreSQL and the
other processes on the machine.
"""

from pathlib import Path
from typing import Literal

import psutil

from mastodon_assets.config.settings import Settings

# A stream and a refresh pass batches through and keep nothing; a training keeps its features.
Workload = Literal["stream", "training"]

_MIB = 2**20
_CGROUP_ROOT = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")
# Share of the limit, the least and the most in MiB. A stream of full batches needs 600 MiB. The
# limits in docker/compose.yaml leave room for these numbers (test_compose).
_SHARES: dict[Workload, tuple[float, int, int]] = {
    "stream": (1 / 8, 768, 2048),
    "training": (1 / 3, 1024, 16_384),
}
# While a batch is read, its bytes exist several times in the heap of the driver.
_BATCH_SHARE_OF_HEAP = 16


def driver_memory(settings: Settings, workload: Workload = "stream") -> str:
    """Return SPARK_DRIVER_MEMORY, or the memory chosen for `workload`, such as `2048m`."""
    return settings.spark_driver_memory or f"{chosen_mebibytes(memory_limit(), workload)}m"


def chosen_mebibytes(limit: int, workload: Workload) -> int:
    """Choose the heap of a driver.

    Args:
        limit: Bytes that all processes of the machine or container have together.
        workload: What the driver is for.

    Returns:
        Mebibytes. The least is returned even if the limit is lower.
    """
    share, least, most = _SHARES[workload]
    return max(least, min(most, int(limit * share / _MIB)))


def batch_bytes(settings: Settings) -> int:
    """Return how many bytes of Kafka records a batch of the stream may have."""
    return parse_memory(driver_memory(settings)) // _BATCH_SHARE_OF_HEAP


def parse_memory(text: str) -> int:
    """Return the bytes of a number with k, m, g or t, as SPARK_DRIVER_MEMORY has it."""
    return int(text[:-1]) << 10 * ("kmgt".index(text[-1].lower()) + 1)


def memory_limit() -> int:
    """Return the bytes of the machine, or the limit of this process's cgroup if it is lower."""
    return limit_of(psutil.virtual_memory().total, _cgroup_limits(_CGROUP_ROOT, _OWN_CGROUP))


def limit_of(total: int, cgroup_limits: list[str]) -> int:
    """Return the lowest of the machine's memory and the limits of cgroups.

    Args:
        total: Bytes of the machine.
        cgroup_limits: Contents of `memory.max` (version 2) or `memory.limit_in_bytes` (version 1);
            `max` and numbers above the machine's memory are no limits.
    """
    limits = [int(text) for text in map(str.strip, cgroup_limits) if text.isdecimal()]
    return min([total, *(limit for limit in limits if limit > 0)])


def _cgroup_limits(root: Path, own: Path) -> list[str]:
    """Read the limits of this process's cgroup and of the cgroups above it."""
    limits = []
    for folder, name in _cgroup_folders(root, own):
        try:
            limits.append((folder / name).read_text(encoding="ascii"))
        except OSError:
            continue
    return limits


def _cgroup_folders(root: Path, own: Path) -> list[tuple[Path, str]]:
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    folders: list[tuple[Path, str]] = []
    for line in lines:
        _, _, entry = line.partition(":")
        controllers, _, path = entry.partition(":")
        if controllers == "":
            base, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            base, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        # In a container the path may be that of the host, and the root is the container's own.
        below = Path(path.lstrip("/"))
        folders += [(base / parent, name) for parent in (below, *below.parents)]
    return folders
