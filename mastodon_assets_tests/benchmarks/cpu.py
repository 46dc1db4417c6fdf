"""CPU seconds of a command and of the servers that it uses, by kind of process.

What belongs here: sampling. A process that ends between two samples is counted up to the last one.
"""

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import psutil

_PAUSE_SECONDS = 0.2
# Processes of PostgreSQL that serve no connection.
_BACKGROUND = ("checkpointer", "background", "walwriter", "autovacuum", "io", "logical")


@contextmanager
def cpu_seconds(servers: Mapping[str, psutil.Process]) -> Iterator[dict[str, float]]:
    """Yield a mapping that has, at the end, the CPU seconds used meanwhile.

    Args:
        servers: Name to process. The processes of PostgreSQL are counted by what they do.

    Yields:
        Kind of process to seconds: children of this process, and the servers.
    """
    used: dict[str, float] = defaultdict(float)
    before = _sample(servers)
    seen = dict(before)
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(_PAUSE_SECONDS):
            seen.update(_sample(servers))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield used
    finally:
        is_over.set()
        thread.join()
        seen.update(_sample(servers))
        for key, seconds in seen.items():
            used[key[0]] += seconds - before.get(key, 0.0)


def _sample(servers: Mapping[str, psutil.Process]) -> dict[tuple[str, int, float], float]:
    """Return the CPU seconds of each process so far, by kind, id and time of its start."""
    processes: dict[int, tuple[str | None, psutil.Process]] = {}
    for child in psutil.Process().children(recursive=True):
        processes[child.pid] = (None, child)
    # Servers may be children of this process as well.
    for name, server in servers.items():
        with suppress(psutil.Error):
            for each in (server, *server.children(recursive=True)):
                processes[each.pid] = (name, each)
    found: dict[tuple[str, int, float], float] = {}
    for server_name, process in processes.values():
        # It may have ended since it was listed.
        with suppress(psutil.Error):
            times = process.cpu_times()
            kind = _kind(server_name, " ".join(process.cmdline()))
            found[kind, process.pid, process.create_time()] = times.user + times.system
    return found


def _kind(server: str | None, command: str) -> str:
    if server:
        is_backend = command.startswith("postgres: ") and not command.startswith(
            tuple(f"postgres: {name}" for name in _BACKGROUND)
        )
        return f"{server}: connections" if is_backend else server
    if "pyspark.daemon" in command:
        return "Spark's Python workers"
    return "Spark's JVM" if "java" in command.partition(" ")[0] else "Python"
