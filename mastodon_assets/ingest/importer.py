"""Import of recorded `Status` objects, one per line, as if a server's timeline had listed them.

What belongs here: how a file becomes lines. What becomes of a line is decided in `handler`, so
consent and contract are the same as for live posts.
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
# More than any server sends for one post; a longer line is cut and so is no JSON any more.
_LONGEST_LINE = 16 * 1024 * 1024
_WAIT_SECONDS = 0.1


class RecordingUnreadableError(PlatformError):
    """Raised if a file of recorded statuses is damaged; everything before that is published."""


def import_statuses(settings: Settings, file: BinaryIO, *, instance: str) -> IngestSummary:
    """Publish all statuses of a file; at the end everything is acknowledged.

    A second import publishes the same posts with a later time of receipt, so the first one stays.

    Args:
        settings: Kafka, PostgreSQL and the admission policy.
        file: Newline-delimited JSON, plain or gzipped; blank lines do not count.
        instance: The server at which the statuses were recorded. A delete names a post by its id
            at this server.

    Raises:
        RecordingUnreadableError: The file cannot be read to its end.
        ServiceUnavailableError: Kafka or PostgreSQL does not answer.
        TopicMissingError: Kafka has no such topic.
        MissingTablesError: PostgreSQL has no such tables.
        WithdrawnKeyError: The suppression list cannot be read with the key of the settings.
        SuppressedServerError: The server is on the suppression list.
    """
    with publishing(settings) as publisher:
        handler = EventHandler(
            publisher,
            instance=instance,
            policy=admission_policy(settings),
            suppression_list=watched_suppression_list(settings),
        )
        try:
            for line in _lines(file):
                _wait_for_room(publisher)
                handler.handle_recorded(line, datetime.now(UTC))
        except (OSError, EOFError, zlib.error) as error:
            publisher.flush()
            raise RecordingUnreadableError(
                f"the file is damaged after {handler.summary.received} statuses, which are"
                f" published ({error}); get a complete copy and import it again, nothing is stored"
                " twice"
            ) from error
        publisher.flush()
    return handler.summary


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield lines that are not blank, without line ends and a byte order mark."""
    # rich's reader, which shows the progress, has no `peek`.
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
    """Wait until Kafka takes messages; raise ServiceUnavailableError if it is stuck."""
    while not publisher.has_room():
        if publisher.is_stuck():
            raise publisher.unavailable("no acknowledgement")
        publisher.wait(_WAIT_SECONDS)
