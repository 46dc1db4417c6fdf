import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mastodon_assets.settings import Settings, as_environment
from mastodon_assets.toots.ledger import read_ledger
from mastodon_assets.warehouse.checks import window_sum_and_rows
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.records import delete, upsert

_PATIENCE_SECONDS = 90


def _wait_until_stored(settings: Settings, messages: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, "the stream ended by itself"
        with transaction(settings.postgres_url, snapshot=True) as connection:
            if sum(read_ledger(connection, settings.kafka_topic).values()) == messages:
                return
        time.sleep(0.2)
    raise AssertionError(f"{messages} messages were not stored in {_PATIENCE_SECONDS} s")


def test_the_stream_follows_the_topic_and_ends_in_good_order_at_sigterm(
    settings: Settings, produce: Callable[..., None], tmp_path: Path
) -> None:
    produce([upsert("1"), upsert("2")])
    process = subprocess.Popen(
        [sys.executable, "-m", "mastodon_assets.cli", "stream"],
        env={**os.environ, **as_environment(settings)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        _wait_until_stored(settings, 2, process)
        produce([delete("2"), upsert("3"), b"garbage"], 1)
        _wait_until_stored(settings, 5, process)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, err.decode()[-2000:]
    assert b"5 messages in" in out
    assert b"Traceback" not in err
    with transaction(settings.postgres_url, snapshot=True) as connection:
        assert window_sum_and_rows(connection) == (2, 2)
