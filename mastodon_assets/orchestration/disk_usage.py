"""Disk space of Kafka, PostgreSQL, Dagster, backups: size, growth, days until the disk is full.

What belongs here: measuring, and the samples that growth is computed from. The sensor of retention
takes a sample per hour.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from mastodon_assets.config.settings import Settings
from mastodon_assets.errors import PlatformError, SettingsError
from mastodon_assets.files import read_text, write_atomically
from mastodon_assets.orchestration.dagster_home import existing_dagster_home

_FILE = "sizes.jsonl"
_BETWEEN_SAMPLES = timedelta(hours=1)
_KEPT = timedelta(days=8)
# Shorter spans say more about the hour than about the days to come.
_LEAST_SPAN = timedelta(hours=6)
_DAY = timedelta(days=1)
_MEBIBYTE = 2**20


@dataclass(frozen=True)
class Sample:
    """Bytes per part at a moment."""

    at: datetime
    sizes: Mapping[str, int]


@dataclass(frozen=True)
class DiskUsage:
    """The space that the platform takes.

    Attributes:
        sizes: Bytes per part: `kafka`, `postgresql`, `dagster`, `backups`; without those that have
            no folder here.
        growth_per_day: Bytes per day, per part, over the last week; empty if it is not known yet.
        free: Bytes that are free on the disk of the state folder.
        days_until_full: Days until that disk is full, by the growth of the parts on it; None if it
            is not known or does not fill.
    """

    sizes: Mapping[str, int]
    growth_per_day: Mapping[str, float]
    free: int
    days_until_full: float | None

    def __str__(self) -> str:
        parts = []
        for part, size in self.sizes.items():
            growth = self.growth_per_day.get(part)
            daily = "" if growth is None else f" ({growth / _MEBIBYTE:+,.0f} MiB per day)"
            parts.append(f"{part} {size / _MEBIBYTE:,.0f} MiB{daily}")
        text = ", ".join(parts) or "nothing stored yet"
        if self.days_until_full is None:
            return text
        return f"{text}; the disk is full in {self.days_until_full:,.0f} days"


def read_disk_usage(settings: Settings) -> DiskUsage:
    """Measure, and compare with the oldest sample of the last week."""
    home = settings.mastodon_assets_home.absolute()
    sizes = _measure(settings)
    now = datetime.now().astimezone()
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    growth = growth_per_day([*_read_samples(home), Sample(now, sizes)])
    elsewhere = _elsewhere(settings, existing)
    total = sum(size for part, size in growth.items() if part not in elsewhere)
    return DiskUsage(sizes, growth, free, free / total if total > 0 else None)


def growth_per_day(samples: Sequence[Sample]) -> dict[str, float]:
    """Return bytes per day, per part, between the first and the last sample."""
    if not samples or samples[-1].at - samples[0].at < _LEAST_SPAN:
        return {}
    first, last = samples[0], samples[-1]
    days = (last.at - first.at) / _DAY
    return {
        part: (size - first.sizes[part]) / days
        for part, size in last.sizes.items()
        if part in first.sizes
    }


def take_sample(settings: Settings, now: datetime) -> None:
    """Store a sample if the last is an hour old; forget those of more than a week ago."""
    home = settings.mastodon_assets_home.absolute()
    samples = _read_samples(home)
    if samples and now - samples[-1].at < _BETWEEN_SAMPLES:
        return
    kept = [each for each in samples if now - each.at < _KEPT]
    lines = [
        json.dumps({"at": each.at.isoformat(), "sizes": dict(each.sizes)})
        for each in [*kept, Sample(now, _measure(settings))]
    ]
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(home / _FILE, "\n".join(lines) + "\n")


def _read_samples(home: Path) -> list[Sample]:
    try:
        documents = [json.loads(line) for line in (read_text(home / _FILE) or "").splitlines()]
        return [Sample(datetime.fromisoformat(each["at"]), each["sizes"]) for each in documents]
    except (ValueError, KeyError, TypeError):
        return []


def _folders(settings: Settings) -> dict[str, Path | None]:
    home = settings.mastodon_assets_home.absolute()
    return {
        "kafka": home / "kafka",
        "dagster": existing_dagster_home(home),
        "backups": settings.backup_dir,
    }


def _measure(settings: Settings) -> dict[str, int]:
    folders = _folders(settings)
    sizes = {part: _folder_size(folder) for part, folder in folders.items() if folder}
    sizes = {part: size for part, size in sizes.items() if size}
    try:
        return {**sizes, "postgresql": _database_size(settings)}
    except PlatformError:
        return sizes


def _elsewhere(settings: Settings, existing: Path) -> set[str]:
    """Return the parts that are not on the disk of the folder `existing`."""
    folders = _folders(settings)
    parts = {part for part, folder in folders.items() if _on_another_disk(folder, existing)}
    return parts if _is_database_here(settings) else {*parts, "postgresql"}


def _is_database_here(settings: Settings) -> bool:
    from psycopg.conninfo import conninfo_to_dict

    try:
        url = settings.postgres_url.get_secret_value()
    except SettingsError:
        return True
    host = str(conninfo_to_dict(url).get("host", ""))
    return host in ("localhost", "127.0.0.1", "::1") or host.startswith("/")


def _on_another_disk(folder: Path | None, existing: Path) -> bool:
    if folder is None or not folder.exists():
        return False
    return folder.stat().st_dev != existing.stat().st_dev


def _database_size(settings: Settings) -> int:
    from mastodon_assets.warehouse.database import PERSON_SECONDS, transaction

    with transaction(
        settings.postgres_url, snapshot=True, max_seconds=PERSON_SECONDS
    ) as connection:
        row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    assert row is not None
    return int(row[0])


def _folder_size(folder: Path) -> int:
    """Return the bytes on disk below `folder`; files that are removed meanwhile do not count."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                # Kafka's files of offsets are sparse.
                total += Path(parent, name).lstat().st_blocks * 512
            except FileNotFoundError:
                continue
    return total
