"""Recorded `Status` objects, one a line, into Kafka, as if a server's timeline had listed them.

What belongs here: how a file becomes lines. What becomes of a line is decided in `handler`, so
consent and contract are those of live posts.
"""

import gzip
import io
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import BinaryIO

from mastodon_assets.config.settings import Settings
from mastodon_assets.errors import PlatformError
from mastodon_assets.ingest.handler import EventHandler, IngestSummary
from mastodon_assets.ingest.policy.admission import admission_policy
from mastodon_assets.kafka.publisher import Publisher, publishing
from mastodon_assets.warehouse.suppression_list import watched_suppression_list

_GZIP = b"\x1f\x8b"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# More than any server sends of a post; what is longer is cut, and so no JSON any more.
_LONGEST_LINE = 16 * 1024 * 1024
_WAIT_SECONDS = 0.1


class RecordingUnreadableError(PlatformError):
    """A file of recorded statuses breaks off; what stands before that has been published."""


def import_statuses(settings: Settings, file: BinaryIO, *, instance: str) -> IngestSummary:
    """Publish the statuses of `file`, newline-delimited JSON, plain or gzipped, to its end.

    `instance` is the server they were recorded at: with the id it is what a delete names. Blank
    lines do not count. At the end all is acknowledged. A second import publishes the same posts
    with a later time of receipt, by which the first is the one that stays.

    Raises: RecordingUnreadableError where the file cannot be read to its end,
    ServiceUnavailableError, TopicMissingError, MissingTablesError, WithdrawnKeyError,
    WithdrawnServerError.
    """
    with publishing(settings) as publisher:
        handler = EventHandler(
            publisher,
            instance=instance,
            rules=admission_policy(settings),
            suppression_list=watched_suppression_list(settings),
        )
        try:
            for line in _lines(file):
                _wait_for_room(publisher)
                handler.handle_recorded(line, datetime.now(UTC))
        except (OSError, EOFError, zlib.error) as error:
            publisher.flush()
            raise RecordingUnreadableError(
                f"the file breaks off after {handler.summary.received} statuses, which are"
                f" published ({error}); get it whole and import it again, nothing comes twice"
            ) from error
        publisher.flush()
    return handler.summary


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines that are not blank, without their ends and a byte order mark."""
    # rich's reader, which counts what is read, has no `peek`.
    source = io.BufferedReader(file)  # type: ignore[type-var]
    is_zipped = source.peek(len(_GZIP))[: len(_GZIP)] == _GZIP
    text: BinaryIO = gzip.GzipFile(fileobj=source) if is_zipped else source  # type: ignore[assignment]
    is_first = True
    while line := text.readline(_LONGEST_LINE):
        if not line.endswith(b"\n"):
            while (rest := text.readline(_LONGEST_LINE)) and not rest.endswith(b"\n"):
                continue
        line = line.removeprefix(_BYTE_ORDER_MARK if is_first else b"").strip()
        is_first = False
        if line:
            yield line


def _wait_for_room(publisher: Publisher) -> None:
    """Raises: ServiceUnavailableError where Kafka takes nothing any more."""
    while not publisher.has_room():
        if publisher.is_stuck():
            raise publisher.unavailable("no acknowledgement")
        publisher.wait(_WAIT_SECONDS)
