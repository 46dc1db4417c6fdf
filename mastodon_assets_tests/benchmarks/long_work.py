"""How long the stream waits for the write lock during a rebuild, a purge, retention, a re-score.

    python -m mastodon_assets_tests.benchmarks.long_work DATABASE_URL [posts]

It drops and recreates the schema `masto`. Meanwhile another connection takes the write lock again
and again, as the stream does; its longest wait is what counts.
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from pydantic import SecretStr

from mastodon_assets.config.settings import load_settings
from mastodon_assets.sentiment.scoring.score import read_posts, score_without_model, write_scores
from mastodon_assets.stream.purge import purge_rows
from mastodon_assets.stream.retention import remove_old_rows
from mastodon_assets.stream.windows import rebuild_windows
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.locks import take_write_lock
from mastodon_assets.warehouse.suppression_list import SuppressionList, add_entries, entry_hash
from mastodon_assets.warehouse.tables import USER_AVG_LENGTH_WINDOWED
from mastodon_assets_tests.benchmarks import merge

_KEY = SecretStr("a key for benchmarks only")
_SERVER = "one.example"


def main(url: SecretStr, posts: int) -> None:
    """Fill the tables, and print rows, seconds and the longest wait of each operation."""
    merge.main(url, posts, 50_000)
    with transaction(url) as connection:
        connection.execute("DELETE FROM masto.user_avg_length_windowed")
    for name, work in {
        "rebuild of empty windows": _rebuild,
        "scores of 100,000 posts": _score,
        "retention": _remove_old,
        "purge of all that is left": _purge,
    }.items():
        began_at = time.monotonic()
        with _waiting(url) as waits:
            rows = work(url)
        seconds = time.monotonic() - began_at
        sys.stdout.write(
            f"{name}: {rows:,} rows in {seconds:.1f} s; waits for the lock: {len(waits)},"
            f" the longest {max(waits):.2f} s\n"
        )


@contextmanager
def _waiting(url: SecretStr) -> Iterator[list[float]]:
    """Take the write lock again and again; yield the seconds of each wait."""
    waits: list[float] = []
    is_over = threading.Event()

    def wait() -> None:
        while not is_over.is_set():
            with transaction(url) as connection:
                began_at = time.monotonic()
                take_write_lock(connection)
                waits.append(time.monotonic() - began_at)
            is_over.wait(0.05)

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield waits
    finally:
        is_over.set()
        thread.join()


def _rebuild(url: SecretStr) -> int:
    with transaction(url) as connection:
        return rebuild_windows(connection, USER_AVG_LENGTH_WINDOWED)


def _score(url: SecretStr) -> int:
    with transaction(url) as connection:
        found = connection.execute("SELECT id FROM masto.toots_raw LIMIT 100000").fetchall()
        posts = read_posts(connection, [id_ for (id_,) in found])
    return sum(write_scores(url, score_without_model(posts)).values())


def _remove_old(url: SecretStr) -> int:
    settings = load_settings(database_url=url, posts_keep_days=1)
    return remove_old_rows(settings, datetime(2026, 11, 3, 1, tzinfo=UTC), seconds=3600).posts


def _purge(url: SecretStr) -> int:
    with transaction(url) as connection:
        add_entries(connection, _KEY, "server", [_SERVER])
    hashed = entry_hash(_KEY, "server", _SERVER)
    with transaction(url) as connection:
        return purge_rows(connection, SuppressionList(_KEY, frozenset({hashed})))["toots_raw"]


if __name__ == "__main__":
    main(SecretStr(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 300_000)
