"""The brake on removals: what is concluded for many posts at once waits for a person.

What belongs here: when removals are held, and the table `masto.suspicious_sources`. A server that
is restored from a backup or under repair answers 404 for posts that it has (observed: 3,691 rows
would go, 65 of them rightly). What a server says of one post by an event is never held.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydantic import SecretStr

from mastodon_assets.ingest.source_log import SourceLog
from mastodon_assets.warehouse.database import PERSON_SECONDS, transaction

# What a person accepted stays accepted this long, because posts are asked for in several rounds.
_ACCEPTED = timedelta(days=1)


@dataclass(frozen=True)
class Suspicion:
    """Why a server's conclusions are held; `status_ids` are the posts that wait for removal."""

    reason: str
    status_ids: Sequence[str] = ()
    accepted_until: datetime | None = None

    @property
    def is_accepted(self) -> bool:
        """Whether a person has let it pass."""
        return self.accepted_until is not None and self.accepted_until > datetime.now(UTC)


class RemovalBrake:
    """Decides about the removals of one server. Methods read and write PostgreSQL.

    `reason` says why removals are held at present; None if they are not. `is_accepted` says whether
    a person let them pass within the last day, when this was made. `fewest` is the smallest number
    of asked posts or accounts that can be held.
    """

    def __init__(
        self, postgres_url: SecretStr, instance: str, *, share: float, fewest: int
    ) -> None:
        """Read whether the server is suspicious.

        Args:
            postgres_url: The database.
            instance: The server.
            share: More than this share of the asked posts may not go at once.
            fewest: Fewer asked posts are never held.

        Raises:
            ServiceUnavailableError: PostgreSQL does not answer.
            MissingTablesError: The tables are missing.
        """
        self._postgres_url = postgres_url
        self._instance = instance
        self._share = share
        self.fewest = fewest
        found = read_suspicion(postgres_url, instance)
        self.is_accepted = found is not None and found.is_accepted
        self.reason = None if found is None or found.is_accepted else found.reason

    def passed(
        self, status_ids: Sequence[str], asked: int, *, accounts: int | None = None
    ) -> Sequence[str]:
        """Return the posts that may be removed: all, or none while they are held.

        Args:
            status_ids: Posts that the server does not show any more, or that may not stay.
            asked: The posts that were asked for, these included.
            accounts: If the posts go for the sake of their accounts: how many these are. Then
                `asked` counts accounts too.

        Raises:
            ServiceUnavailableError: PostgreSQL does not answer.
            MissingTablesError: The tables are missing.
        """
        found = read_suspicion(self._postgres_url, self._instance)
        going = len(status_ids) if accounts is None else accounts
        is_too_much = asked >= self.fewest and going > self._share * asked
        if found is not None and found.is_accepted:
            self.reason = None
            return status_ids
        if is_too_much:
            self.reason = (
                f"{going} of {asked} posts that were asked for are gone"
                if accounts is None
                else f"{going} of {asked} accounts that were read refuse now, or are gone"
            )
        elif accounts is None and asked >= self.fewest and self.reason is not None:
            # The server shows its posts again: whatever it was is over.
            self.reason = None
            forget_suspicion(self._postgres_url, self._instance)
        if self.reason is None:
            return status_ids
        waiting = () if found is None or found.accepted_until is not None else found.status_ids
        held = list(dict.fromkeys([*waiting, *status_ids]))
        save_suspicion(self._postgres_url, self._instance, Suspicion(self.reason, held))
        return ()

    @contextmanager
    def reported(self, log: SourceLog) -> Iterator[None]:
        """Log if removals are held at the end of the block that were not held before."""
        was_held = self.reason
        yield
        if self.reason is not None and was_held is None:
            log.warning(
                "suspicious: %s; nothing is removed until a person has looked at the server and"
                " runs: mastodon-assets sources accept %s",
                self.reason,
                self._instance,
            )

    def suspect(self, reason: str) -> None:
        """Hold removals from now on.

        Raises:
            ServiceUnavailableError: PostgreSQL does not answer.
            MissingTablesError: The tables are missing.
        """
        if self.reason is None and not self.is_accepted:
            self.reason = reason
            save_suspicion(self._postgres_url, self._instance, Suspicion(reason))


def read_suspicion(postgres_url: SecretStr, instance: str) -> Suspicion | None:
    """Return why the server is suspicious or was accepted; None if neither.

    Raises:
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: The tables are missing.
    """
    with transaction(postgres_url, max_seconds=PERSON_SECONDS) as connection:
        row = connection.execute(
            "SELECT reason, status_ids, accepted_until FROM masto.suspicious_sources"
            " WHERE instance = %s AND (accepted_until IS NULL OR accepted_until > now())",
            (instance,),
        ).fetchone()
    return None if row is None else Suspicion(*row)


def read_suspicious(postgres_url: SecretStr) -> dict[str, Suspicion]:
    """Return the servers whose removals are held, by name.

    Raises:
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: The tables are missing.
    """
    with transaction(postgres_url, max_seconds=PERSON_SECONDS) as connection:
        rows = connection.execute(
            "SELECT instance, reason, status_ids FROM masto.suspicious_sources"
            " WHERE accepted_until IS NULL ORDER BY instance"
        ).fetchall()
    return {instance: Suspicion(reason, ids) for instance, reason, ids in rows}


def save_suspicion(postgres_url: SecretStr, instance: str, suspicion: Suspicion) -> None:
    """Record that the removals of a server are held; its time stays that of the first.

    Raises:
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: The tables are missing.
    """
    with transaction(postgres_url, max_seconds=PERSON_SECONDS) as connection:
        connection.execute(
            """
            INSERT INTO masto.suspicious_sources AS s (instance, reason, status_ids)
            VALUES (%s, %s, %s)
            ON CONFLICT (instance) DO UPDATE
               SET reason = excluded.reason, status_ids = excluded.status_ids,
                   since = CASE WHEN s.accepted_until IS NULL THEN s.since ELSE now() END,
                   accepted_until = NULL
            """,
            (instance, suspicion.reason, list(suspicion.status_ids)),
        )


def forget_suspicion(postgres_url: SecretStr, instance: str) -> None:
    """Remove the record of a server that is not suspicious any more.

    Raises:
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: The tables are missing.
    """
    with transaction(postgres_url, max_seconds=PERSON_SECONDS) as connection:
        connection.execute("DELETE FROM masto.suspicious_sources WHERE instance = %s", (instance,))


def accept_suspicion(postgres_url: SecretStr, instance: str) -> None:
    """Let the removals of a server pass for a day, and hold no post any more.

    Raises:
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: The tables are missing.
    """
    with transaction(postgres_url, max_seconds=PERSON_SECONDS) as connection:
        connection.execute(
            "UPDATE masto.suspicious_sources SET status_ids = '{}', accepted_until = now() + %s"
            " WHERE instance = %s",
            (_ACCEPTED, instance),
        )
