import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

from mastodon_assets.config.settings import Settings, as_environment
from mastodon_assets.stream.drain import drain
from mastodon_assets.stream.ledger import read_ledger
from mastodon_assets.stream.stream_lock import stream_lock_owner
from mastodon_assets.warehouse.checks import window_sum_and_rows
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.support.ports import free_port
from mastodon_assets_tests.support.records import delete, upsert

pytestmark = pytest.mark.usefixtures("own_servers")

_PATIENCE_SECONDS = 90


@contextmanager
def _streaming(
    settings: Settings, folder: Path, *options: str
) -> Iterator["subprocess.Popen[bytes]"]:
    with (folder / "stream.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mastodon_assets.cli.main", "stream", *options],
            env={**os.environ, **as_environment(settings)},
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _log(folder: Path) -> str:
    return (folder / "stream.log").read_text()


def _wait_until_stored(
    settings: Settings, messages: int, process: "subprocess.Popen[bytes]", folder: Path
) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the stream ended by itself: {_log(folder)[-2000:]}"
        with transaction(settings.postgres_url, snapshot=True) as connection:
            if sum(read_ledger(connection, settings.kafka_topic).values()) == messages:
                return
        time.sleep(0.2)
    raise AssertionError(f"{messages} messages not stored in {_PATIENCE_SECONDS} s: {_log(folder)}")


def _no_session() -> object:
    raise AssertionError("the drain must leave the reading to the stream")


def test_the_stream_follows_the_topic_through_a_disconnect_and_ends_in_good_order_at_sigterm(
    settings: Settings, produce: Callable[..., None], tmp_path: Path
) -> None:
    metrics_port, ui_port = free_port(), free_port()
    options = ("--metrics-port", str(metrics_port), "--ui-port", str(ui_port))
    produce([upsert("1"), upsert("2")])
    with _streaming(settings, tmp_path, *options) as process:
        _wait_until_stored(settings, 2, process, tmp_path)
        with urlopen(f"http://127.0.0.1:{ui_port}/jobs/") as page:
            assert b"mastodon_assets" in page.read()

        # The database throws the stream out; it comes back by itself and misses nothing.
        with transaction(settings.postgres_url) as connection:
            holder = stream_lock_owner(connection, settings.kafka_topic)
            assert holder is not None
            connection.execute("SELECT pg_terminate_backend(%s)", (holder.pid,))
        produce([delete("2"), upsert("3"), b"garbage"], 1)
        _wait_until_stored(settings, 5, process, tmp_path)
        assert "going on from the ledger in" in _log(tmp_path)

        produce([upsert("4")], 2)
        summary = drain(_no_session, settings, report=print)  # type: ignore[arg-type]
        assert (sum(summary.end.values()), summary.batches) == (6, 0)

        with urlopen(f"http://127.0.0.1:{metrics_port}/metrics") as answer:
            reported = answer.read().decode()
        assert 'mastodon_assets_stream_messages_total{outcome="stored"} 4.0' in reported
        assert "mastodon_assets_stream_restarts_total 1.0" in reported
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
    assert process.returncode == 0, _log(tmp_path)
    assert "6 messages in" in _log(tmp_path)
    assert "Traceback" not in _log(tmp_path)
    with transaction(settings.postgres_url, snapshot=True) as connection:
        assert window_sum_and_rows(connection) == (3, 3)
        # Each toot has its score, or the reason for none, from the transaction that stored it.
        assert connection.execute(
            "SELECT reason, count(*) FROM masto.toots_sentiment GROUP BY reason"
        ).fetchall() == [("no_model", 3)]


def test_a_port_that_is_taken_is_wrong_use(settings: Settings, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with _streaming(settings, tmp_path, "--ui-port", port) as process:
            process.wait(timeout=60)
    assert process.returncode == 2
    assert f"port {port} is taken" in _log(tmp_path)
