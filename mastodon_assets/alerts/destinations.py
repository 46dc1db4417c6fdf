"""Where messages go: a webhook, the services of Apprise, a file.

What belongs here: sending one text. A failure is one line without the address, which holds a
secret.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from mastodon_assets.alerts.messages import Level
from mastodon_assets.config.settings import Settings
from mastodon_assets.errors import PlatformError
from mastodon_assets.files import PRIVATE

_SECONDS = 5.0
_DISCORD = ("discord.com", "discordapp.com")


class DeliveryError(PlatformError):
    """A message could not be sent; the text says why."""


@dataclass(frozen=True)
class Destination:
    """One receiver of messages.

    Attributes:
        name: A name that stays the same, without secrets.
        send: Sends a title, a text and its level, or raises `DeliveryError`.
    """

    name: str
    send: Callable[[str, str, Level], None]


def destinations_of(settings: Settings) -> list[Destination]:
    """Return the destinations that ALERT_WEBHOOK_URL, ALERT_URLS and ALERT_FILE name."""
    found = []
    if settings.alert_webhook_url:
        found.append(_webhook(settings.alert_webhook_url))
    if settings.alert_urls:
        found += map(_apprise, dict.fromkeys(settings.alert_urls.get_secret_value().split()))
    if settings.alert_file:
        found.append(_file(settings.alert_file))
    return found


def webhook_document(url: str, text: str) -> dict[str, object]:
    """Return the JSON that a webhook expects: Discord's, or Slack's, which many others read."""
    parts = urlsplit(url)
    is_discord = parts.hostname is not None and parts.hostname.endswith(_DISCORD)
    if is_discord and not parts.path.endswith("/slack"):
        # Nobody is mentioned, whatever a name looks like.
        return {"content": text, "allowed_mentions": {"parse": []}}
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return {"text": escaped}


def _webhook(url: SecretStr) -> Destination:
    def send(title: str, text: str, _level: Level) -> None:
        address = url.get_secret_value()
        _post(address, webhook_document(address, f"{title}\n{text}"))

    return Destination("webhook", send)


def _post(url: str, document: dict[str, object]) -> None:
    """Send JSON; try a second time if there was no connection."""
    import ssl

    import httpx
    import truststore
    from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

    # It logs each request with its address.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    trusted = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        with httpx.Client(timeout=_SECONDS, verify=trusted) as client:
            for attempt in Retrying(
                retry=retry_if_exception_type(httpx.ConnectError),
                stop=stop_after_attempt(2),
                wait=wait_fixed(1),
                reraise=True,
            ):
                with attempt:
                    answer = client.post(url, json=document)
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, ValueError) as error:
        raise DeliveryError(f"the webhook does not answer ({type(error).__name__})") from None
    if not answer.is_success:
        raise DeliveryError(f"the webhook answers with status {answer.status_code}")


def _apprise(url: str) -> Destination:
    # Two addresses of one service differ; the rest of the address is a secret.
    name = f"{url.partition('://')[0]}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"

    def send(title: str, text: str, level: Level) -> None:
        try:
            import apprise
        except ImportError:
            raise DeliveryError("ALERT_URLS needs Apprise; run: pip install apprise") from None
        service = apprise.Apprise()
        if not service.add(url):
            raise DeliveryError(f"Apprise does not know the address {name}")
        if not service.notify(body=text, title=title, notify_type=level):
            raise DeliveryError(f"Apprise could not deliver to {name}")

    return Destination(name, send)


def _file(path: Path) -> Destination:
    def send(title: str, text: str, level: Level) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        document = {"at": now, "level": level, "title": title, "text": text}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, PRIVATE)
            with os.fdopen(descriptor, "a", encoding="utf-8") as file:
                file.write(f"{json.dumps(document)}\n")
        except OSError as error:
            raise DeliveryError(f"cannot write {path} ({error.strerror})") from error

    return Destination("file", send)
