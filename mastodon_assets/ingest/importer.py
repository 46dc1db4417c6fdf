"""Import of recorded `Status` objects, as if a server's timeline had listed them.

What belongs here: the run of an import. Formats of files are in `contract.recordings`. What becomes
of a status is decided in `handler`, so consent and contract are the same as for live posts.
"""

import logging
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import chain, islice
from typing import BinaryIO

import orjson

from mastodon_assets.config.settings import Settings
from mastodon_assets.contract.identity import UNKNOWN_INSTANCE, uri_host
from mastodon_assets.contract.recordings import DAMAGE, RecordingError, open_recording
from mastodon_assets.ingest.handler import EventHandler, IngestSummary
from mastodon_assets.ingest.homes import Homes
from mastodon_assets.ingest.policy.admission import admission_policy
from mastodon_assets.kafka.publisher import Publisher, publishing
from mastodon_assets.warehouse.handle_keys import record_handle_key
from mastodon_assets.warehouse.suppression_list import watched_suppression_list

logger = logging.getLogger(__name__)

_WAIT_SECONDS = 0.1
# This many documents are looked at for the server's name.
_MOST_LOOKED_AT = 1_000


class RecordingUnreadableError(RecordingError):
    """Raised if a file of recorded statuses is damaged; everything before that is published."""


def import_statuses(settings: Settings, file: BinaryIO, *, instance: str | None) -> IngestSummary:
    """Publish all statuses of a file; at the end everything is acknowledged.

    A second import publishes the same posts with a later time of receipt, so the first one stays.

    Args:
        settings: Kafka, PostgreSQL and the admission policy.
        file: The recording, in one of the formats of `contract.recordings`.
        instance: The server at which the statuses were recorded. A delete names a post by its id
            at this server. None takes the host of the pages of local accounts, which are those
            without a domain; without such accounts it is `unknown`.

    Raises:
        RecordingError: The file is one of another kind, or nothing in it is a status.
        RecordingUnreadableError: The file cannot be read to its end.
        ServiceUnavailableError: Kafka or PostgreSQL does not answer.
        TopicMissingError: Kafka has no such topic.
        MissingTablesError: PostgreSQL has no such tables.
        WithdrawnKeyError: The suppression list cannot be read with the key of the settings.
        SuppressedServerError: The server is on the suppression list.
    """
    record_handle_key(settings)
    homes = Homes(settings.postgres_url)
    homes.load()
    with publishing(settings) as publisher:
        received = 0
        try:
            recording = open_recording(file)
            logger.info("reading %s", recording.form)
            first = _first(recording.documents, 1 if instance else _MOST_LOOKED_AT)
            handler = EventHandler(
                publisher,
                instance=instance or _instance_of(first),
                policy=admission_policy(settings),
                suppression_list=watched_suppression_list(settings),
                homes=homes,
            )
            for document in chain(first, recording.documents):
                _wait_for_room(publisher)
                handler.handle_recorded(document, datetime.now(UTC))
                received = handler.summary.received
        except DAMAGE as error:
            publisher.flush()
            raise RecordingUnreadableError(
                f"the file is damaged after {received} statuses, which are published ({error}); get"
                " a complete copy and import it again, nothing is stored twice"
            ) from error
        publisher.flush()
    _check_readable(handler.summary, recording.form)
    return handler.summary


def _first(documents: Iterator[bytes], count: int) -> list[bytes]:
    """Return the first documents; damage after them is met again when the rest is read."""
    first: list[bytes] = []
    try:
        first.extend(islice(documents, count))
    except DAMAGE:
        if not first:
            raise
    return first


def _instance_of(documents: Iterable[bytes]) -> str:
    """Return the host of local accounts' pages if all have the same, else `unknown`."""
    hosts = set()
    for document in documents:
        try:
            status = orjson.loads(document)
            account = status["account"]
            is_local = "@" not in account["acct"]
        except (ValueError, TypeError, KeyError):
            continue
        if is_local and (host := uri_host(account.get("url"))) is not None:
            hosts.add(host)
    if len(hosts) == 1:
        (found,) = hosts
        logger.info("recorded at %s, by the pages of its accounts", found)
        return found
    logger.warning(
        "the file does not say at which server it was recorded; if you know it, name it by"
        " --instance, so that its deletes find these posts"
    )
    return UNKNOWN_INSTANCE


def _check_readable(summary: IngestSummary, form: str) -> None:
    unreadable = summary.errors.total() + summary.withheld["unreadable"]
    if summary.received and unreadable == summary.received:
        raise RecordingError(
            f"nothing in the file could be read as a status; it was taken for {form}, and its"
            f" {unreadable} entries are dead letters; see: mastodon-assets rejected list"
        )


def _wait_for_room(publisher: Publisher) -> None:
    """Wait until Kafka takes messages; raise ServiceUnavailableError if it is stuck."""
    while not publisher.has_room():
        if publisher.is_stuck():
            raise publisher.unavailable("no acknowledgement")
        publisher.wait(_WAIT_SECONDS)
