"""Drain a topic and die on the way: `killed_drain.py before-commit|after-commit BATCH`.

Run as a process of its own, in its own process group, by the test of it. SIGKILL goes to the whole
group, which is this Python and its JVM.
"""

import os
import signal
import sys

import mastodon_assets.stream.query as query_module
from mastodon_assets.config.settings import load_settings
from mastodon_assets.spark.session import build_session
from mastodon_assets.stream.drain import drain
from mastodon_assets.stream.merge import BatchCounts


def main() -> None:
    moment, fatal_batch = sys.argv[1], int(sys.argv[2])
    # After write_batch the rows are written but not committed; after commit they are committed, and
    # Spark does not know it yet.
    owner, name = {
        "before-commit": (query_module, "write_batch"),
        "after-commit": (query_module.TopicReader, "commit"),
    }[moment]
    original = getattr(owner, name)
    calls = 0

    def write_and_die(*arguments: object, **options: object) -> BatchCounts:
        nonlocal calls
        counts: BatchCounts = original(*arguments, **options)
        calls += 1
        if calls == fatal_batch:
            os.killpg(0, signal.SIGKILL)
        return counts

    setattr(owner, name, write_and_die)
    settings = load_settings()
    drain(lambda: build_session(settings), settings, report=print)


if __name__ == "__main__":
    main()
