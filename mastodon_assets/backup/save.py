"""Backups: all that cannot be had again, saved to a folder while the platform is at work.

What belongs here: what a backup contains, making one, finding and removing them. Bringing one back
is in `restore`.

A backup is a folder named by its time. It contains `database.dump` (the schema `masto` at one
moment), `models/` (the champion and its predecessors), `settings.env` (settings without secrets),
`withdrawn.key` if `up` generated it, on demand `dagster/` (see `history`), and `manifest.json`. A
folder without a manifest is not complete. Next to the backups, `suppression-list.jsonl` is written
at each purge.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import file_digest
from importlib.metadata import version
from pathlib import Path
from typing import Any

from psycopg import Connection
from pydantic import SecretStr

from mastodon_assets.backup.history import save_history
from mastodon_assets.config.settings import Settings, as_environment, local_path
from mastodon_assets.config.state_folder import SUPPRESSION_KEY_FILE
from mastodon_assets.errors import PlatformError, SettingsError
from mastodon_assets.files import PRIVATE, write_atomically
from mastodon_assets.sentiment.models.registry import all_models
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.dump import dump_schema
from mastodon_assets.warehouse.rows import count_rows
from mastodon_assets.warehouse.schema_version import check_schema_version, read_schema_version
from mastodon_assets.warehouse.tables import TABLES

DUMP = "database.dump"
MODELS = "models"
SETTINGS = "settings.env"
MANIFEST = "manifest.json"
FORMAT = 1
_NAME = "%Y-%m-%dT%H%M%SZ"
_PARTIAL = ".partial-"
# A backup takes hours at most; then its process was killed.
_OLDEST_PARTIAL = timedelta(days=2)


class BackupError(PlatformError):
    """The backup cannot be written, or what is there is no complete backup."""


@dataclass(frozen=True)
class Backup:
    """A complete backup.

    Attributes:
        folder: Its folder.
        manifest: `format`, `made_at`, `program`, `schema_version`, `postgres`, `ledger` (topic to
            `topic_id` and `next_offsets` per partition), `rows` per table, `models` (versions),
            `history` (whether Dagster's is in it; missing in older ones), `key_fingerprints` of the
            suppression list, and `files` with `bytes` and `sha256`.
    """

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def made_at(self) -> datetime:
        """The moment of its data, UTC."""
        return datetime.fromisoformat(self.manifest["made_at"])

    @property
    def bytes(self) -> int:
        """The size of its files."""
        return sum(file["bytes"] for file in self.manifest["files"].values())


def make_backup(
    settings: Settings,
    target: Path,
    report: Callable[[str], None],
    *,
    dagster_home: Path | None = None,
) -> Backup:
    """Save the present state to a new folder in `target`; writers go on meanwhile.

    Args:
        settings: They name database and models.
        target: The folder of backups; it is created if missing, for its owner only.
        report: Gets lines on the progress.
        dagster_home: DAGSTER_HOME, if its history is to be saved as well.

    Raises:
        BackupError: The folder cannot be written.
        HistoryError: `dagster_home` has no history, or it cannot be read.
        DumpError: pg_dump is missing or failed.
        MissingTablesError: The database has no tables.
        SchemaVersionError: The tables are of another version of this program.
        ServiceUnavailableError: The database fails.
    """
    made_at = datetime.now(UTC)
    final = target / made_at.strftime(_NAME)
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=_PARTIAL, dir=target) as name:
            folder = Path(name) / final.name
            folder.mkdir(mode=0o700)
            described = _save_database(settings, folder, report)
            described["models"] = _save_models(settings, folder, report)
            described["history"] = dagster_home is not None
            if dagster_home is not None:
                report("copying Dagster's history")
                save_history(dagster_home, folder)
            _save_settings(settings, folder)
            _save_key(settings, folder)
            files = {
                str(path.relative_to(folder)): {
                    "bytes": path.stat().st_size,
                    "sha256": _sha256(path),
                }
                for path in _files(folder)
            }
            manifest = {
                "format": FORMAT,
                "made_at": made_at.isoformat(),
                "program": version("mastodon-assets"),
                **described,
                "files": files,
            }
            write_atomically(folder / MANIFEST, json.dumps(manifest, indent=2))
            folder.rename(final)
    except OSError as error:
        raise BackupError(
            f"the backup cannot be written to {target} ({error.strerror}); free space or choose"
            " another folder"
        ) from error
    return Backup(final, manifest)


def read_backup(folder: Path) -> Backup:
    """Read the manifest of a backup.

    Raises:
        BackupError: There is none, or it cannot be read.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        backup = Backup(folder, manifest)
        is_known = manifest["format"] == FORMAT
        _ = (backup.made_at, backup.bytes, manifest["rows"], manifest["schema_version"])
    except FileNotFoundError as error:
        raise BackupError(f"{folder} is no complete backup: it has no {MANIFEST}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackupError(f"{folder / MANIFEST} cannot be read; choose another backup") from error
    if not is_known:
        raise BackupError(f"{folder} was made by a newer version; upgrade mastodon-assets")
    return backup


def check_files(backup: Backup) -> None:
    """Compare the files with their checksums.

    Raises:
        BackupError: A file is missing or differs.
    """
    for name, expected in backup.manifest["files"].items():
        path = backup.folder / name
        if not path.is_file() or _sha256(path) != expected["sha256"]:
            raise BackupError(f"{path} is missing or damaged; choose another backup")


def find_backups(target: Path) -> list[Backup]:
    """Return the complete backups in a folder, newest first; what cannot be read is left out."""
    found = []
    for manifest in target.glob(f"*/{MANIFEST}"):
        try:
            found.append(read_backup(manifest.parent))
        except BackupError:
            continue
    return sorted(found, key=lambda backup: backup.made_at, reverse=True)


def remove_old_backups(target: Path, keep_days: int, now: datetime) -> list[Path]:
    """Remove complete backups older than `keep_days`, but never the newest; return their folders.

    What a killed process left is removed as well.

    Raises:
        BackupError: One cannot be removed.
    """
    since = now - timedelta(days=keep_days)
    removed = [backup.folder for backup in find_backups(target)[1:] if backup.made_at < since]
    try:
        for folder in removed:
            # A half removed folder is no backup, and goes next time.
            partial = folder.rename(folder.with_name(f"{_PARTIAL}{folder.name}"))
            (partial / MANIFEST).unlink()
            shutil.rmtree(partial)
        for folder in _left(target, now):
            shutil.rmtree(folder)
    except OSError as error:
        raise BackupError(
            f"{error.filename or target} cannot be removed ({error.strerror})"
        ) from error
    return removed


def _left(target: Path, now: datetime) -> list[Path]:
    before = (now - _OLDEST_PARTIAL).timestamp()
    return [each for each in target.glob(f"{_PARTIAL}*") if each.stat().st_mtime < before]


def backup_folder(settings: Settings) -> Path:
    """Return BACKUP_DIR.

    Raises:
        SettingsError: It is not set.
    """
    if settings.backup_dir is None:
        raise SettingsError("no folder for backups; set BACKUP_DIR, or name one by --to")
    return settings.backup_dir


def _save_database(
    settings: Settings, folder: Path, report: Callable[[str], None]
) -> dict[str, Any]:
    """Dump the schema; return what the manifest says of it, read in the same snapshot."""
    with transaction(settings.postgres_url, snapshot=True) as connection:
        check_schema_version(connection)
        (snapshot,) = connection.execute("SELECT pg_export_snapshot()").fetchone() or ("",)
        described = {
            "schema_version": read_schema_version(connection),
            "postgres": connection.info.server_version,
            "ledger": _ledger(connection),
            "rows": row_counts(connection),
            "key_fingerprints": [
                fingerprint
                for (fingerprint,) in connection.execute(
                    "SELECT DISTINCT key_fingerprint FROM masto.withdrawn ORDER BY 1"
                )
            ],
        }
        report("dumping the database")
        dump_schema(settings.postgres_url, snapshot, folder / DUMP, report)
    (folder / DUMP).chmod(PRIVATE)
    return described


def row_counts(connection: Connection[Any]) -> dict[str, int]:
    """Count the rows of each table of the catalog."""
    return {
        table.name: count_rows(connection, table) for table in TABLES.values() if not table.is_view
    }


def _ledger(connection: Connection[Any]) -> dict[str, dict[str, Any]]:
    ledger: dict[str, dict[str, Any]] = {}
    for topic, topic_id, partition, next_offset in connection.execute(
        "SELECT topic, topic_id, partition, next_offset FROM masto.kafka_offsets ORDER BY 1, 3"
    ):
        of_topic = ledger.setdefault(topic, {"topic_id": topic_id, "next_offsets": {}})
        of_topic["next_offsets"][str(partition)] = next_offset
    return ledger


def _save_models(settings: Settings, folder: Path, report: Callable[[str], None]) -> list[str]:
    """Copy the folders of all models that were ever champion; return their versions."""
    with transaction(settings.postgres_url, snapshot=True) as connection:
        models = [model for model in all_models(connection) if model.promoted_at is not None]
    saved = []
    for model in models:
        source = local_path(model.path)
        if source is None or not source.is_dir():
            report(f"model {model.version} is not in the backup: it is at {model.path}")
            continue
        shutil.copytree(source, folder / MODELS / model.version)
        saved.append(model.version)
    return saved


def _save_settings(settings: Settings, folder: Path) -> None:
    lines = []
    for name, value in as_environment(settings).items():
        given = getattr(settings, name.lower())
        is_default = given == type(settings).model_fields[name.lower()].default
        if not isinstance(given, SecretStr) and not is_default:
            lines.append(f"{name}={value}\n")
    write_atomically(folder / SETTINGS, "".join(lines))


def _save_key(settings: Settings, folder: Path) -> None:
    key = settings.mastodon_assets_home / SUPPRESSION_KEY_FILE
    if key.exists():
        write_atomically(folder / SUPPRESSION_KEY_FILE, key.read_bytes())


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
