"""Each way out, against a real server on loopback, and what is said when it fails."""

import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mastodon_assets.alerts.destinations import (
    DeliveryError,
    destinations_of,
    webhook_document,
)
from mastodon_assets.alerts.watch import send
from mastodon_assets.config.settings import load_settings
from mastodon_assets.errors import SettingsError
from mastodon_assets_tests.support.ports import free_port

_SECRET = "T0ps3cret"


@dataclass
class _Server:
    """What was posted; `status` is the answer."""

    port: int = 0
    status: int = 200
    documents: list[Any] = field(default_factory=list)


@pytest.fixture
def server(loopback: None) -> Iterator[_Server]:
    posted = _Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            posted.documents.append((self.path, json.loads(body)))
            self.send_response(posted.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        posted.port = running.server_port
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield posted
        running.shutdown()
        thread.join()


def _send(text: str = "PROBLEM: a", **settings: Any) -> list[str | None]:
    return [send(each, text, "failure") for each in destinations_of(load_settings(**settings))]


def test_a_webhook_gets_slacks_json_once(server: _Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    url = f"http://127.0.0.1:{server.port}/services/{_SECRET}"
    assert _send("PROBLEM: <a> & b", alert_webhook_url=url) == [None]
    ((path, document),) = server.documents
    assert path.endswith(_SECRET)
    assert document["text"].endswith("\nPROBLEM: &lt;a&gt; &amp; b")
    assert document["text"].startswith("mastodon_assets on ")
    assert _SECRET not in caplog.text


@pytest.mark.parametrize("status", [302, 429, 500])
def test_a_webhook_that_does_not_take_the_message_is_a_failure_without_its_address(
    server: _Server, status: int
) -> None:
    server.status = status
    url = f"http://127.0.0.1:{server.port}/{_SECRET}"
    assert _send(alert_webhook_url=url) == [f"the webhook answers with status {status}"]
    assert len(server.documents) == 1


@pytest.mark.usefixtures("loopback")
def test_a_webhook_that_is_away_is_a_failure_without_its_address() -> None:
    url = f"http://127.0.0.1:{free_port()}/{_SECRET}"
    assert _send(alert_webhook_url=url) == ["the webhook does not answer (ConnectError)"]


def test_discord_gets_its_own_json_and_mentions_nobody() -> None:
    document = {"content": "<@1>", "allowed_mentions": {"parse": []}}
    assert webhook_document("https://discord.com/api/webhooks/1/x", "<@1>") == document
    assert webhook_document("https://discord.com/api/webhooks/1/x/slack", "a") == {"text": "a"}
    assert webhook_document("https://notdiscord.com.example/", "a") == {"text": "a"}


def test_apprise_gets_each_address_and_names_show_no_secret(
    server: _Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    places = [f"127.0.0.1:{server.port}", f"127.0.0.1:{free_port()}"]
    urls = " ".join(f"json://user:{_SECRET}@{each}/" for each in places)
    taken, failed = _send(alert_urls=urls)
    assert taken is None
    assert failed is not None
    assert failed.startswith("Apprise could not deliver to json-")
    names = [each.name for each in destinations_of(load_settings(alert_urls=urls))]
    assert len(set(names)) == 2
    assert _SECRET not in f"{names} {failed} {caplog.text}"
    ((_, document),) = server.documents
    assert (document["message"], document["type"]) == ("PROBLEM: a", "failure")


def test_an_address_that_apprise_does_not_know_is_a_failure() -> None:
    (failure,) = _send(alert_urls=f"nosuch://{_SECRET}")
    assert failure is not None
    assert failure.startswith("Apprise does not know the address nosuch-")


def test_a_file_gets_a_line_of_json_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "alerts.jsonl"
    assert _send("one", alert_file=path) == _send("two", alert_file=path) == [None]
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["text"] for line in lines] == ["one", "two"]
    assert path.stat().st_mode & 0o777 == 0o600
    (destination,) = destinations_of(load_settings(alert_file=tmp_path))
    with pytest.raises(DeliveryError, match=r"cannot write .* \(Is a directory\)"):
        destination.send("t", "text", "info")


@pytest.mark.parametrize(
    ("setting", "value"),
    [("alert_webhook_url", f"hooks.example/{_SECRET}"), ("alert_urls", f"ntfy:{_SECRET}")],
)
def test_an_address_that_is_none_is_refused_and_not_shown(setting: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"{setting.upper()}=.*allowed: ") as refused:
        load_settings(**{setting: value})
    assert _SECRET not in str(refused.value)
