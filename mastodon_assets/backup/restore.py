"""Restoring a backup into an empty database.

What belongs here: the checks before it, its order, and what it says at the end. Removals that were
requested after the backup are applied again: by the suppression list next to the backups, and by
the `delete` messages that Kafka still holds, which the stream reads next.
"""

import shutil
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import Connection, sql
from pydantic import SecretStr

from mastodon_assets.backup.history import HISTORY, restore_history
from mastodon_assets.backup.save import (
    DUMP,
    MODELS,
    Backup,
    BackupError,
    check_files,
    read_backup,
    row_counts,
)
from mastodon_assets.config.settings import Settings, is_uri, local_path
from mastodon_assets.config.state_folder import SUPPRESSION_KEY_FILE
from mastodon_assets.errors import PlatformError, SettingsError
from mastodon_assets.files import read_text, write_atomically
from mastodon_assets.kafka.topics import read_topic
from mastodon_assets.stream.ledger import find_loss
from mastodon_assets.stream.purge import purge_rows
from mastodon_assets.warehouse.database import connect, transaction
from mastodon_assets.warehouse.dump import restore_schema
from mastodon_assets.warehouse.migrate import migrate
from mastodon_assets.warehouse.roles import act_as_owner, grant_rights
from mastodon_assets.warehouse.schema_version import migrations
from mastodon_assets.warehouse.suppression_file import FILE, export_list, import_list
from mastodon_assets.warehouse.suppression_list import key_fingerprint, read_suppression_list
from mastodon_assets.warehouse.tables import SCHEMA

# With rows in one of these, a database is in use.
_TABLES_IN_USE = ("toots_raw", "toots_deleted", "toots_rejected", "sentiment_models")
# The databases in which backups are tested begin with it.
_TESTED = "masto_restore_"


@dataclass(frozen=True)
class RestoreResult:
    """What was restored, and what is left to do.

    Attributes:
        rows: Rows per table, before removals were applied again.
        removed: Rows per table that were removed because of later entries of the suppression list.
        models: Versions whose folders were restored.
        notes: What the operator has to know or do, one sentence each.
    """

    rows: dict[str, int]
    removed: dict[str, int]
    models: list[str]
    notes: list[str]


def restore(
    settings: Settings,
    folder: Path,
    report: Callable[[str], None],
    *,
    dagster_home: Callable[[], Path],
) -> RestoreResult:
    """Restore a backup into the database of the settings, which must be empty.

    Args:
        settings: They name database, broker, MODEL_DIR and key.
        folder: The backup.
        report: Gets lines on the progress.
        dagster_home: Returns DAGSTER_HOME, which it creates if missing. It is called for a backup
            that has Dagster's history.

    Raises:
        BackupError: The backup is damaged, or the database has data or other users.
        SettingsError: The key of the suppression list is another one.
        DumpError: pg_restore is missing or failed; the database is empty then.
        ServiceUnavailableError: The database fails.
    """
    backup = read_backup(folder)
    report("comparing the checksums")
    check_files(backup)
    _check_version(backup)
    settings = _with_key(settings, backup)
    kept_list, owner = _prepare(settings)
    restore_schema(settings.postgres_url, backup.folder / DUMP, owner, report)
    migrate(settings.postgres_url)
    with transaction(settings.postgres_url) as connection:
        act_as_owner(connection)
        grant_rights(connection)
    with transaction(settings.postgres_url, snapshot=True) as connection:
        rows = row_counts(connection)
    return RestoreResult(
        rows=rows,
        removed=_remove_again(settings, backup, kept_list, report),
        models=_restore_models(settings, backup),
        notes=[*_notes(settings, backup), *_restore_history(backup, dagster_home)],
    )


def _restore_history(backup: Backup, dagster_home: Callable[[], Path]) -> list[str]:
    if not backup.manifest.get("history"):
        return []
    home = dagster_home()
    if restore_history(backup.folder, home):
        return []
    return [
        f"Dagster's history was not restored, because {home} has one; to replace it, stop Dagster"
        f" and copy the contents of {backup.folder / HISTORY} there"
    ]


def _check_version(backup: Backup) -> None:
    if backup.manifest["schema_version"] not in migrations():
        raise BackupError(
            f"the backup has schema {backup.manifest['schema_version']}, which this version does"
            " not know; upgrade mastodon-assets"
        )


def _with_key(settings: Settings, backup: Backup) -> Settings:
    """Return settings with the key that made the backup's suppression list.

    Raises:
        SettingsError: Another key is in use.
    """
    needed = backup.manifest["key_fingerprints"]
    if settings.suppression_key and key_fingerprint(settings.suppression_key) in needed:
        return settings
    saved = read_text(backup.folder / SUPPRESSION_KEY_FILE)
    if settings.withdrawn_key is None and saved and not _entries(settings):
        # `up` generated a key for an empty list; nothing was made with it.
        settings.mastodon_assets_home.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(settings.mastodon_assets_home / SUPPRESSION_KEY_FILE, f"{saved}\n")
        return settings.model_copy(update={"withdrawn_key": SecretStr(saved)})
    if needed:
        raise SettingsError(
            "the backup's suppression list was made with another key; set WITHDRAWN_KEY to the one"
            " of the installation that made the backup"
        )
    return settings


def _entries(settings: Settings) -> str:
    with transaction(settings.postgres_url, snapshot=True) as connection:
        if not _has_table(connection, "withdrawn"):
            return ""
    return export_list(settings)


def check_restorable(settings: Settings, backup: Backup, report: Callable[[str], None]) -> None:
    """Restore the dump into a database of its own, compare the numbers of rows, and remove it.

    Raises:
        BackupError: A file is damaged, the rows differ, or the role may not create databases.
        DumpError: The dump cannot be restored.
    """
    check_files(backup)
    name = sql.Identifier(f"{_TESTED}{uuid.uuid4().hex[:8]}")
    with connect(settings.postgres_url) as connection:
        connection.autocommit = True
        _drop_left_databases(connection)
        try:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
        except psycopg.errors.InsufficientPrivilege as error:
            raise BackupError(
                "the backup was not restored for a test: the role in DATABASE_URL may not create"
                " databases; grant it CREATEDB"
            ) from error
        try:
            url = _with_database(settings.postgres_url, name.as_string().strip('"'))
            _check_rows(url, backup, report)
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def _drop_left_databases(connection: Connection[Any]) -> None:
    """Drop what killed tests left: no purge and no delete reaches these copies of all posts."""
    left = connection.execute(
        "SELECT datname FROM pg_database WHERE datname ~ %s", (rf"\A{_TESTED}[0-9a-f]{{8}}\Z",)
    ).fetchall()
    for (name,) in left:
        # Another test is at work on it, or it is another role's.
        with suppress(psycopg.errors.ObjectInUse, psycopg.errors.InsufficientPrivilege):
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))


def _with_database(postgres_url: SecretStr, name: str) -> SecretStr:
    parts = urlsplit(postgres_url.get_secret_value())
    return SecretStr(urlunsplit(parts._replace(path=f"/{name}")))


def _check_rows(postgres_url: SecretStr, backup: Backup, report: Callable[[str], None]) -> None:
    with transaction(postgres_url) as connection:
        owner = _replace_schema(connection)
    restore_schema(postgres_url, backup.folder / DUMP, owner, report)
    expected = backup.manifest["rows"]
    with transaction(postgres_url, snapshot=True) as connection:
        found = row_counts(connection)
    if found != expected:
        differing = [name for name in expected if found.get(name) != expected[name]]
        raise BackupError(f"{backup.folder}: other rows than expected in {', '.join(differing)}")


def _prepare(settings: Settings) -> tuple[str, str]:
    """Empty the schema if no data are in it; return its suppression list and its owner."""
    kept_list = _entries(settings)
    with connect(settings.postgres_url) as connection:
        _check_unused(connection)
        try:
            owner = _replace_schema(connection)
        except psycopg.errors.InsufficientPrivilege as error:
            raise BackupError(
                f"the role in DATABASE_URL may not create the schema"
                f" ({str(error).splitlines()[0]}); restore with the database's owner"
            ) from error
    return kept_list, owner


def _replace_schema(connection: Connection[Any]) -> str:
    """Create the schema again, with the owner that it had; return the owner."""
    schema = sql.Identifier(SCHEMA)
    found = connection.execute(
        "SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = %s"
        " UNION ALL SELECT current_user LIMIT 1",
        (SCHEMA,),
    ).fetchone()
    assert found is not None, "the second row is always there"
    owner = str(found[0])
    connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(schema))
    connection.execute(sql.SQL("CREATE SCHEMA {}").format(schema))
    connection.execute(sql.SQL("ALTER SCHEMA {} OWNER TO {}").format(schema, sql.Identifier(owner)))
    return owner


def _check_unused(connection: Connection[Any]) -> None:
    others = connection.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    ).fetchone()
    if others and others[0]:
        raise BackupError(
            f"the database is in use (connections: {others[0]}); stop `mastodon-assets run`, `ui`,"
            " `ingest` and `stream`, then run it again"
        )
    for name in _TABLES_IN_USE:
        if _has_table(connection, name) and _has_rows(connection, name):
            raise BackupError(
                f"the database has data already ({SCHEMA}.{name}); restore into an empty one: run"
                " mastodon-assets down --wipe and up, or set DATABASE_URL to a new database"
            )


def _has_table(connection: Connection[Any], name: str) -> bool:
    row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (f"{SCHEMA}.{name}",)).fetchone()
    return row == (True,)


def _has_rows(connection: Connection[Any], name: str) -> bool:
    row = connection.execute(
        sql.SQL("SELECT EXISTS (SELECT FROM {})").format(sql.Identifier(SCHEMA, name))
    ).fetchone()
    return row == (True,)


def _remove_again(
    settings: Settings, backup: Backup, kept_list: str, report: Callable[[str], None]
) -> dict[str, int]:
    """Add the entries of the suppression list that the backup lacks, and remove their rows."""
    later = read_text(backup.folder.parent / FILE) or ""
    entries = "\n".join(filter(None, (kept_list.strip(), later)))
    if not entries:
        return {}
    added = import_list(settings, entries)
    if not added:
        return {}
    report(f"removing the rows of {added} later entries of the suppression list")
    with transaction(settings.postgres_url) as connection:
        suppressed = read_suppression_list(connection, settings.suppression_key)
        connection.commit()
        return purge_rows(connection, suppressed)


def _restore_models(settings: Settings, backup: Backup) -> list[str]:
    """Copy the models' folders to MODEL_DIR and point their rows there; return their versions."""
    folder = local_path(settings.model_dir)
    if folder is None:
        return []
    # Executors that have it mounted find it by the URI.
    named = settings.model_dir if is_uri(settings.model_dir) else folder.absolute()
    restored = []
    for version in backup.manifest["models"]:
        target = folder.absolute() / version
        if not target.exists():
            shutil.copytree(backup.folder / MODELS / version, target)
        with transaction(settings.postgres_url) as connection:
            connection.execute(
                "UPDATE masto.sentiment_models SET path = %s WHERE version = %s",
                (f"{str(named).rstrip('/')}/{version}", version),
            )
        restored.append(version)
    return restored


def _notes(settings: Settings, backup: Backup) -> list[str]:
    notes = []
    missing = _models_without_folder(settings, backup)
    if missing:
        notes.append(
            f"models without a folder: {', '.join(missing)}; copy their folders, or train again"
        )
    for topic in backup.manifest["ledger"]:
        try:
            state = read_topic(settings, topic)
        except PlatformError as error:
            notes.append(f"Kafka was not compared: {error}")
            continue
        with transaction(settings.postgres_url, snapshot=True) as connection:
            loss = find_loss(connection, state)
        if loss:
            notes.append(
                f"{loss}; start the stream with KAFKA_ACCEPT_DATA_LOSS=true to go on without the"
                " lost messages, then `ingest --since` reads the posts again"
            )
    return notes


def _models_without_folder(settings: Settings, backup: Backup) -> list[str]:
    with transaction(settings.postgres_url, snapshot=True) as connection:
        rows = connection.execute(
            "SELECT version FROM masto.sentiment_models WHERE promoted_at IS NOT NULL ORDER BY 1"
        ).fetchall()
    saved = () if local_path(settings.model_dir) is None else backup.manifest["models"]
    return [version for (version,) in rows if version not in saved]
