"""What a chart or file says it shows."""

from typing import Any

import dagster as dg
import pytest

from mastodon_assets.config.settings import Settings
from mastodon_assets.orchestration.assets.reports import chart_assets, export_assets
from mastodon_assets.orchestration.resources import SettingsResource
from mastodon_assets.reports import specs
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.watermarks import set_watermark


def _materialize(name: str) -> dg.ExecuteInProcessResult:
    (asset,) = [a for a in (*chart_assets, *export_assets) if a.key.to_user_string() == name]
    return dg.materialize([asset], resources={"settings": SettingsResource()})


def _progress(settings: Settings, name: str) -> tuple[int, str | None] | None:
    with transaction(settings.postgres_url, snapshot=True) as connection:
        return connection.execute(
            "SELECT toots_version, model_version FROM masto.asset_progress WHERE asset = %s",
            (name,),
        ).fetchone()


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("part5_sentiment_by_day_stacked", "toots_sentiment"),
        ("viz_sentiment_dist", "toots_sentiment"),
        ("part5_toots_per_day", "batch_toots_per_day"),
        ("viz_top_hashtags", "batch_top_hashtag"),
        ("sentiment_by_hashtag", "hourly_hashtags"),
    ],
)
def test_it_shows_what_its_source_shows_not_what_the_toots_are_by_now(
    name: str, source: str, environment: Settings
) -> None:
    assert _materialize(name).success
    assert _progress(environment, name) == (0, None)
    with transaction(environment.postgres_url) as connection:
        connection.execute("UPDATE masto.data_versions SET version = 5")
        set_watermark(connection, source, toots_version=3, model_version="m1")
    assert _materialize(name).success
    assert _progress(environment, name) == (3, "m1")


@pytest.mark.parametrize(
    ("name", "made_by"),
    [("part5_toots_per_day", "render_chart"), ("viz_sentiment_dist", "write_export")],
)
def test_a_file_that_is_cut_fails_its_check(
    name: str, made_by: str, environment: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with transaction(environment.postgres_url) as connection:
        connection.execute("INSERT INTO masto.batch_toots_per_day VALUES ('2026-11-20', 3)")
    (passed,) = _materialize(name).get_asset_check_evaluations()
    assert passed.passed
    make = getattr(specs, made_by)

    def cut(*arguments: Any) -> Any:
        made = make(*arguments)
        made.path.write_bytes(made.path.read_bytes()[:9])
        return made

    monkeypatch.setattr(specs, made_by, cut)
    with transaction(environment.postgres_url) as connection:
        connection.execute(
            "INSERT INTO masto.sentiment_totals"
            " (day, outcome, model_version, toots_count, prob_sum)"
            " VALUES ('2026-11-20', 'no_words', 'm', 1, 0)"
        )
    (failed,) = _materialize(name).get_asset_check_evaluations()
    assert not failed.passed


def test_a_chart_that_could_not_be_written_shows_nothing_new(
    environment: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.reports_dir.write_text("a file where the folder should be")
    with pytest.raises(Exception, match="cannot write"):
        _materialize("part5_toots_per_day")
    assert _progress(environment, "part5_toots_per_day") is None


def test_a_charts_metadata_has_its_preview_and_where_it_lies(
    environment: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(environment.reports_dir.parent)
    monkeypatch.setenv("REPORTS_DIR", "reports")
    with transaction(environment.postgres_url) as connection:
        connection.execute("INSERT INTO masto.batch_toots_per_day VALUES ('2026-11-20', 3)")
    (made,) = _materialize("part5_toots_per_day").asset_materializations_for_node(
        "part5_toots_per_day"
    )
    assert str(made.metadata["preview"].value).startswith("![preview](data:image/png;base64,")
    assert str(made.metadata["sparkline"].value).startswith("![sparkline](data:image/svg+xml")
    path = environment.reports_dir / "part5_toots_per_day.png"
    assert made.metadata["path"].value == str(path)
    assert made.metadata["rows"].value == 1
    assert path.is_file()


def test_a_chart_that_did_not_change_adds_no_picture_to_the_history(environment: Settings) -> None:
    name = "part5_toots_per_day"
    first, second = (
        _materialize(name).asset_materializations_for_node(name)[0].metadata for _ in range(2)
    )
    assert "preview" in first
    assert not {"preview", "sparkline"} & second.keys()
    assert second["path"] == first["path"]


def test_a_chart_without_news_is_drawn_again_only_if_its_file_is_gone(
    environment: Settings,
) -> None:
    name = "part5_toots_per_day"
    file = environment.reports_dir / f"{name}.png"
    assert _materialize(name).success
    drawn_at = file.stat().st_mtime_ns
    assert _materialize(name).success
    assert file.stat().st_mtime_ns == drawn_at
    file.unlink()
    again = _materialize(name)
    assert file.exists()
    assert [check.passed for check in again.get_asset_check_evaluations()] == [True]
