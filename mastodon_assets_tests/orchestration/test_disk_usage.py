"""Size, growth and days until the disk is full."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mastodon_assets.config.settings import Settings, load_settings
from mastodon_assets.operations.doctor import check_growth
from mastodon_assets.orchestration import disk_usage
from mastodon_assets.orchestration.dagster_home import dagster_home
from mastodon_assets.orchestration.disk_usage import (
    Sample,
    growth_per_day,
    read_disk_usage,
    take_sample,
)

_NOW = datetime.now(UTC)


def _sample(days_ago: float, **sizes: int) -> Sample:
    return Sample(_NOW - timedelta(days=days_ago), sizes)


def test_growth_is_what_was_added_between_the_first_and_the_last_sample() -> None:
    samples = [_sample(4, kafka=100, dagster=50), _sample(2, kafka=900), _sample(0, kafka=300)]
    assert growth_per_day(samples) == {"kafka": 50.0}


@pytest.mark.parametrize("samples", [[], [_sample(0, kafka=1)], [_sample(0.1), _sample(0)]])
def test_growth_is_unknown_for_the_first_hours(samples: list[Sample]) -> None:
    assert growth_per_day(samples) == {}


def test_a_sample_is_taken_each_hour_and_the_disk_fills_by_what_was_added_since(
    settings: Settings, tmp_path: Path
) -> None:
    backups = tmp_path / "backups"
    settings = settings.model_copy(update={"mastodon_assets_home": tmp_path, "backup_dir": backups})
    home = tmp_path
    backups.mkdir()
    (backups / "database.dump").write_bytes(b"x" * 4096)
    (home / "kafka").mkdir(parents=True, exist_ok=True)
    (home / "kafka" / "segment.log").write_bytes(b"x" * 4096)
    dagster_home(home)
    take_sample(settings, _NOW - timedelta(days=2))
    take_sample(settings, _NOW - timedelta(days=2) + timedelta(minutes=59))
    assert len((home / "sizes.jsonl").read_text().splitlines()) == 1
    (home / "kafka" / "more.log").write_bytes(b"x" * 40960)
    usage = read_disk_usage(settings)
    assert {"kafka", "dagster", "postgresql", "backups"} <= usage.sizes.keys()
    assert usage.growth_per_day["kafka"] == pytest.approx(20480, rel=0.2)
    assert usage.days_until_full is not None


def test_a_database_on_another_machine_does_not_fill_this_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "postgresql://u:p@{}:5432/masto"
    here = load_settings(mastodon_assets_home=tmp_path, database_url=url.format("127.0.0.1"))
    there = load_settings(mastodon_assets_home=tmp_path, database_url=url.format("db.example"))
    sizes = iter([10 * 2**30, 20 * 2**30, 20 * 2**30])
    monkeypatch.setattr(disk_usage, "_database_size", lambda _settings: next(sizes))
    take_sample(here, _NOW - timedelta(days=2))
    assert read_disk_usage(here).days_until_full is not None
    usage = read_disk_usage(there)
    assert usage.growth_per_day["postgresql"] == pytest.approx(5 * 2**30, rel=0.01)
    assert usage.days_until_full is None


def test_doctor_warns_of_a_disk_that_fills_within_a_month(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usage = disk_usage.DiskUsage({"kafka": 2**30}, {"kafka": 2.0**30}, 10 * 2**30, 10.0)
    monkeypatch.setattr(disk_usage, "read_disk_usage", lambda _settings: usage)
    finding = check_growth(load_settings())
    assert finding.level == "yellow"
    assert finding.text == "kafka 1,024 MiB (+1,024 MiB per day); the disk is full in 10 days"
    assert "_KEEP_DAYS" in finding.advice
