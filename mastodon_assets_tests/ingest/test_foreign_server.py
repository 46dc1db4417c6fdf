"""The ingester against a server that is none of ours: mastodon_mock, in a process of its own.

It is another software with another idea of the wire: a greeting of its own, edits under another
name, ids of milliseconds, times with an offset, unlisted posts on the public stream.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from mastodon import Mastodon

from mastodon_assets.config.settings import Settings, as_environment
from mastodon_assets_tests.support.mock_broker import broker_of
from mastodon_assets_tests.support.ports import free_port

_START_SECONDS = 60
_WAIT_SECONDS = 60
_TOKEN = "mock_token"


@dataclass
class Foreign:
    """The server, a client that posts, and a second one that reads."""

    base_url: str
    api: Any = field(init=False)

    def __post_init__(self) -> None:
        self.api = Mastodon(
            api_base_url=self.base_url, access_token=_TOKEN, version_check_mode="none"
        )

    def fail(self, path: str, effect: dict[str, Any]) -> None:
        """The next request for `path` is answered so."""
        rule = {"match": {"path": path}, "effect": effect, "count": 1}
        httpx.post(f"{self.base_url}/api/v1/_mock/faults", json=rule).raise_for_status()

    def faults_left(self) -> int:
        return len(httpx.get(f"{self.base_url}/api/v1/_mock/faults").json())


@pytest.fixture
def foreign() -> Iterator[Foreign]:
    port = free_port()
    command = [sys.executable, "-m", "mastodon_mock", "serve", "--in-memory"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--log-level", "error"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            _wait_until_up(f"http://127.0.0.1:{port}")
            yield Foreign(f"http://127.0.0.1:{port}")
        finally:
            process.kill()


def _wait_until_up(base_url: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            httpx.get(f"{base_url}/api/v1/streaming/health").raise_for_status()
        except httpx.HTTPError:
            assert time.monotonic() < deadline, "the server did not come up"
            time.sleep(0.1)
        else:
            return


@contextmanager
def ingesting(
    settings: Settings, foreign: Foreign, *arguments: str
) -> Iterator["subprocess.Popen[str]"]:
    """`mastodon-assets ingest …`, from its first connection on; ended in good order."""
    environment = {
        **os.environ,
        **as_environment(settings),
        "MASTODON_API_BASE_URL": foreign.base_url,
        "MASTODON_ACCESS_TOKEN": _TOKEN,
    }
    command = [sys.executable, "-m", "mastodon_assets.cli.main", "ingest", *arguments]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            reported = ""
            while "connected" not in reported:
                line = process.stderr.readline()
                assert line, reported
                reported += line
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            _, rest = process.communicate(timeout=60)
        assert process.returncode == 0, reported + rest
        assert "Traceback" not in reported + rest


def messages(settings: Settings) -> list[dict[str, Any]]:
    return broker_of(settings).messages(settings.kafka_topic)


def wait_for(settings: Settings, count: int) -> list[dict[str, Any]]:
    """The messages by receipt, once there are so many."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while len(found := messages(settings)) < count:
        assert time.monotonic() < deadline, json.dumps(found)
        time.sleep(0.2)
    return sorted(found, key=lambda message: message["received_at"])


def test_posts_edits_deletes_and_gaps_of_another_software(
    settings: Settings, foreign: Foreign
) -> None:
    api = foreign.api
    with ingesting(settings, foreign):
        kept = api.status_post("first #Tea", visibility="public")
        api.status_post("not for all", visibility="unlisted")
        api.status_update(kept["id"], "second thoughts")
        gone = api.status_post("too much", visibility="public")
        api.status_delete(gone["id"])
        found = wait_for(settings, 4)

    reported = [(message["op"], message["id"], message.get("content")) for message in found]
    assert reported == [
        ("upsert", str(kept["id"]), "first #Tea"),
        ("upsert", str(kept["id"]), "second thoughts"),
        ("upsert", str(gone["id"]), "too much"),
        ("delete", str(gone["id"]), None),
    ]
    assert len(str(kept["id"])) == 13
    assert (found[0]["edited_at"], found[1]["edited_at"] is None) == (None, False)
    assert found[0]["uri"] == found[1]["uri"]
    assert all(message["received_at"].endswith("Z") for message in found)

    missed = api.status_post("nobody reads this", visibility="public")
    foreign.fail("/api/v1/timelines/public", {"type": "malformed"})
    with ingesting(settings, foreign, "--until-caught-up") as process:
        process.wait(120)
    assert foreign.faults_left() == 0
    brought = {message["id"]: message for message in messages(settings)}
    assert brought[str(missed["id"])]["origin"] == "backfill"
    assert "not for all" not in json.dumps(messages(settings))


def test_a_refused_stream_is_reported_with_its_status(settings: Settings, foreign: Foreign) -> None:
    foreign.fail("/api/v1/streaming/public", {"type": "status", "status": 401})
    environment = {
        **os.environ,
        **as_environment(settings),
        "MASTODON_API_BASE_URL": foreign.base_url,
        "MASTODON_ACCESS_TOKEN": _TOKEN,
    }
    ended = subprocess.run(
        [sys.executable, "-m", "mastodon_assets.cli.main", "ingest", "--max", "1"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 1
    assert "answered 401" in ended.stderr
    assert "does not accept the token" in ended.stderr
