from pathlib import Path

import dagster as dg
import pytest

from mastodon_assets.orchestration.dagster_home import dagster_home, existing_dagster_home
from mastodon_assets.orchestration.events import report_to_dagster
from mastodon_assets.stream.merge import BatchCounts
from mastodon_assets.stream.metrics import StreamReport

_REPORT = StreamReport("a_topic", 60.0, BatchCounts(stored=30), 10, 2.0, lag=4)


def test_the_three_tables_are_materialized_without_a_run(tmp_path: Path) -> None:
    home = dagster_home(tmp_path)
    report_to_dagster(home)(_REPORT)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        for table in ("toots_raw", "toot_metrics_windowed", "user_avg_length_windowed"):
            event = instance.get_latest_materialization_event(dg.AssetKey(table))
            assert event is not None
            assert event.asset_materialization is not None
            metadata = event.asset_materialization.metadata
            assert metadata["messages"].value == 30
            assert metadata["lag_messages"].value == 4
            assert metadata["mean_batch_seconds"].value == 0.2


def test_a_damaged_instance_is_logged_and_does_not_fail_the_stream(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "dagster.yaml").write_text("storage: nonsense\n")
    report_to_dagster(tmp_path)(_REPORT)
    (message,) = caplog.messages
    assert message.startswith("the web page does not show the last minute: ")


def test_nothing_is_recorded_where_dagster_was_never_set_up(tmp_path: Path) -> None:
    home = existing_dagster_home(tmp_path)
    assert home is None
    report_to_dagster(home)(_REPORT)
    assert list(tmp_path.iterdir()) == []
