"""The lineage with real parts: empty, rebuilt, and from recorded streams and posts.

From the simulator to the charts it is run in `test_secure_lineage`.
"""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import dagster as dg
import pytest
from pydantic import SecretStr

from mastodon_assets.config.settings import Settings
from mastodon_assets.definitions import build_definitions
from mastodon_assets.ingest.handler import IngestSummary
from mastodon_assets.ingest.supervisor import ingest
from mastodon_assets.simulator.recorded import RecordedSource, read_statuses
from mastodon_assets.simulator.server import running
from mastodon_assets.simulator.sources import RawStream, Source
from mastodon_assets.stream.drain import drain
from mastodon_assets.warehouse.checks import window_sum_and_rows
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.support.lineage import CHARTS, all_files, all_rows, materializing
from mastodon_assets_tests.support.records import upsert
from mastodon_assets_tests.support.shared_data import SHARED_DATA

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from mastodon_assets.sentiment.train import TrainingResult

_RECORDED = SHARED_DATA / "toots" / "statuses.ndjson"
_STREAMS = SHARED_DATA / "toots" / "sse"

needs_recordings = pytest.mark.skipif(
    not _RECORDED.exists(), reason=f"the recorded toots are not at {_RECORDED}"
)


def _ingest(settings: Settings, source: Source) -> IngestSummary:
    with running(source) as server:
        return ingest(
            settings.model_copy(
                update={
                    "mastodon_api_base_url": server.base_url,
                    "mastodon_access_token": SecretStr(server.token),
                }
            ),
            max_events=None,
            until_caught_up=True,
            should_stop=lambda: False,
        )


def test_an_empty_platform_gives_honest_pictures_not_errors(
    spark: "SparkSession", environment: Settings
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        refresh = build_definitions().get_repository_def().get_job("refresh_job")
        assert refresh.execute_in_process(instance=instance).success
    made = all_files(environment)
    assert made["viz_top_hashtags.csv"].splitlines() == [b"hashtag,n"]
    assert sum(name.endswith(".png") for name in made) == len(CHARTS)


def test_with_nothing_new_refresh_and_training_start_no_spark(
    spark: "SparkSession",
    environment: Settings,
    produce: Callable[..., None],
    synthetic_model: Callable[["SparkSession", Settings], "TrainingResult"],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    synthetic_model(spark, environment)
    produce([upsert("1"), upsert("2", language="de")])
    repository = build_definitions().get_repository_def()
    with dg.DagsterInstance.ephemeral() as instance:
        first = repository.get_job("refresh_job").execute_in_process(instance=instance)
        assert first.success
        rows = all_rows(environment.postgres_url)

        def no_session(*_: object, **__: object) -> NoReturn:
            raise AssertionError("started Spark although nothing is new")

        monkeypatch.setattr("mastodon_assets.orchestration.resources.build_session", no_session)
        for job in ("refresh_job", "train_job"):
            assert repository.get_job(job).execute_in_process(instance=instance).success
    assert all_rows(environment.postgres_url) == rows


def test_windows_alone_are_rebuilt_from_the_rows(
    spark: "SparkSession", environment: Settings, produce: Callable[..., None]
) -> None:
    produce([upsert("1"), upsert("2", language="de")])
    with materializing() as materialize:
        assert materialize("toots_raw").success
        right = all_rows(environment.postgres_url)
        with transaction(environment.postgres_url) as connection:
            connection.execute("DELETE FROM masto.toot_metrics_windowed")
        produce([upsert("3")])
        assert materialize("toot_metrics_windowed").success
    # The check of the table notes what it has compared.
    progress = {"asset_progress": right["asset_progress"]}
    assert all_rows(environment.postgres_url) | progress == right


def _unique_uris_with_consent(path: Path) -> set[str]:
    """Counted from the file by the rules of consent, without any of the product's code."""
    import html
    import re

    uris = set()
    for line in path.read_text(encoding="utf-8").strip().split("\n"):
        status = json.loads(line)
        account = status["account"]
        bio = html.unescape(re.sub(r"<[^>]*>", "", account.get("note") or "")).lower()
        if (
            status["visibility"] == "public"
            and status.get("reblog") is None
            and not account.get("noindex")
            and not re.search(r"(?<!\w)#(nobot|noindex)(?!\w)", bio)
        ):
            uris.add(status["uri"])
    return uris


@needs_recordings
def test_recorded_toots_become_one_row_for_each_uri_that_passes_consent(
    spark: "SparkSession", settings: Settings
) -> None:
    summary = _ingest(settings, RecordedSource(read_statuses(_RECORDED)))
    drain(lambda: spark, settings, report=print)
    expected = _unique_uris_with_consent(_RECORDED)
    with transaction(settings.postgres_url, snapshot=True) as connection:
        stored = {uri for (uri,) in connection.execute("SELECT uri FROM masto.toots_raw")}
        in_windows, rows = window_sum_and_rows(connection)
    assert stored == expected
    assert len(expected) == 1051
    assert in_windows == rows == 1051
    assert set(summary.withheld) == {"not_public", "boost", "noindex", "nobot"}


@needs_recordings
@pytest.mark.parametrize(
    "name",
    [
        "real_mastodon_public.txt",
        "real_mastodon_burst_out_of_order.txt",
        "docs_mastodon_examples.txt",
        "mastodon_mock_0.6.1_public.txt",
    ],
)
def test_recorded_bytes_of_a_stream_go_the_whole_way(
    name: str, spark: "SparkSession", settings: Settings
) -> None:
    recording = _STREAMS / name
    summary = _ingest(settings, RawStream(recording))
    drained = drain(lambda: spark, settings, report=print)
    events = Counter(
        line.removeprefix("event: ")
        for line in recording.read_text(encoding="utf-8").split("\n")
        if line.startswith("event: ")
    )
    edits = events["status.update"] + events["status_update"]
    assert summary.received == events["update"] + edits + events["delete"]
    assert drained.counts.rejected == 0
    assert drained.counts.messages == summary.upserts + summary.deletes
    with transaction(settings.postgres_url, snapshot=True) as connection:
        in_windows, rows = window_sum_and_rows(connection)
        raised = connection.execute(
            "SELECT count(*) FROM masto.toots_raw r JOIN masto.toots_deleted USING"
            " (instance, status_id)"
        ).fetchone()
    assert in_windows == rows
    assert raised == (0,)
