"""Failures of a query: Kafka's, Spark's and those of temporary files, as errors of the platform.

What belongs here: which failure an exception stands for, and what to do about it.
"""

import tempfile

from mastodon_assets.errors import ServiceUnavailableError


class TemporaryFilesError(ServiceUnavailableError):
    """A folder for temporary files is full, or its content was removed."""


class TopicReplacedError(ServiceUnavailableError):
    """The topic was deleted and created again under the same name while it was read."""


def as_platform_error(error: Exception) -> Exception:
    """Return the platform's error for a failure of Kafka or of temporary files.

    Any other exception is returned as it is.
    """
    if isinstance(error, OSError) and error.filename is not None:
        return TemporaryFilesError(
            f"{error.filename}: {error.strerror}; this step wrote nothing: make room, or set TMPDIR"
            " to another folder, then run it again"
        )
    if "No space left on device" in str(error):
        return TemporaryFilesError(
            f"no space left for Spark's temporary files (in {tempfile.gettempdir()}, or in"
            " SPARK_LOCAL_DIRS); this step wrote nothing: make room, then run it again"
        )
    if "Assigned: Set(" in str(error):
        return ServiceUnavailableError(
            "a partition was added to the topic while the query started; this step wrote nothing:"
            " run it again"
        )
    if "not available in Kafka any more" in str(error):
        return ServiceUnavailableError(
            "Kafka has lost messages that were to be read next; this step wrote nothing: run it"
            " again, and it names them"
        )
    if "org.apache.kafka" not in str(error) and "KAFKA" not in str(error):
        return error
    lines = [line.strip() for line in str(error).splitlines() if "afka" in line]
    return ServiceUnavailableError(
        f"reading Kafka failed ({lines[0][:300]}); this batch wrote nothing: run it again"
    )
