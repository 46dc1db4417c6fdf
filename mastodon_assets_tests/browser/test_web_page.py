"""What a user sees in Chromium on the web page, from the first click to a chart."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mastodon_assets.config.settings import Settings
from mastodon_assets.warehouse.tables import TOOTS_RAW
from mastodon_assets_tests.support.records import upsert
from mastodon_assets_tests.support.web_server import browser_page, web_page

if TYPE_CHECKING:
    from playwright.sync_api import Page

_RUN_SECONDS = 300
_TICK_SECONDS = 60
_ENDED = ("SUCCESS", "FAILURE", "CANCELED")
_NEWEST_RUN = "{ runsOrError(limit: 1) { ... on Runs { results { runId jobName status } } } }"
_NEWEST_TICK = """{ sensorOrError(sensorSelector: {
    repositoryLocationName: "mastodon_assets",
    repositoryName: "__repository__",
    sensorName: "mastodon_stream_sensor"
}) { ... on Sensor { sensorState { ticks(limit: 1) { skipReason } } } } }"""
_POST = """query => fetch('/graphql', {
    method: 'POST',
    headers: {'content-type': 'application/json'},
    body: JSON.stringify({query}),
}).then(response => response.json())"""


@pytest.fixture
def page() -> Iterator["Page"]:
    with browser_page() as opened:
        yield opened


@pytest.fixture
def url(page: "Page", settings: Settings, tmp_path: Path) -> Iterator[str]:
    """After `page`: without a browser nothing needs to be started."""
    # The sensor stays quiet for the test: it waits for the click's run, and has nothing after it.
    with web_page(settings.model_copy(update={"refresh_min_seconds": 3600}), tmp_path) as base:
        yield base


def _toots(count: int) -> list[object]:
    texts = ("What a wonderful, happy day", "This is a terrible, sad loss", "Ein schöner Tag")
    return [
        upsert(
            str(number),
            content=texts[number % 3],
            content_html=f"<p>{texts[number % 3]}</p>",
            language="de" if number % 3 == 2 else "en",
            created_at=f"2026-11-{18 + number % 3}T10:00:00.000Z",
        )
        for number in range(count)
    ]


def _newest_run(page: "Page") -> dict[str, Any]:
    (run,) = page.evaluate(_POST, _NEWEST_RUN)["data"]["runsOrError"]["results"]
    return dict(run)


def _newest_skip_reason(page: "Page") -> str | None:
    sensor = page.evaluate(_POST, _NEWEST_TICK)["data"]["sensorOrError"]
    (tick,) = sensor["sensorState"]["ticks"]
    reason: str | None = tick["skipReason"]
    return reason


def _wait_until(is_so: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        time.sleep(1)


def test_a_click_materializes_everything_and_the_page_shows_columns_a_chart_and_the_sensor(
    page: "Page", url: str, produce: Callable[..., None], settings: Settings
) -> None:
    page.goto(f"{url}/asset-groups", wait_until="domcontentloaded")
    page.get_by_role("button", name=re.compile(r"Materialize all \(\d+\)")).click()
    page.get_by_text("Launched run").wait_for()
    # Not before the click, or the sensor might have asked first; long before the run reads Kafka.
    produce(_toots(50))
    _wait_until(lambda: _newest_run(page)["status"] in _ENDED, _RUN_SECONDS)
    run = _newest_run(page)
    assert (run["jobName"], run["status"]) == ("__ASSET_JOB", "SUCCESS")
    page.goto(f"{url}/runs/{run['runId']}", wait_until="domcontentloaded")
    page.get_by_text("Success", exact=True).first.wait_for()

    page.goto(f"{url}/assets/toots_raw", wait_until="domcontentloaded")
    page.get_by_text("Row count").wait_for()
    page.get_by_text("50", exact=True).first.wait_for()
    page.get_by_placeholder("Filter columns").wait_for()
    for column in TOOTS_RAW.columns:
        page.get_by_text(column.comment.replace("`", ""), exact=True).last.wait_for()

    page.goto(f"{url}/assets/part5_sentiment_distribution", wait_until="domcontentloaded")
    page.get_by_text("[Show Markdown]").click()
    preview = page.get_by_role("img", name="preview")
    preview.wait_for()
    assert preview.evaluate("image => image.naturalWidth") == 360
    assert (settings.reports_dir / "part5_sentiment_distribution.png").is_file()

    nothing_new = "nothing new: tables, scores and charts show all messages"
    _wait_until(lambda: _newest_skip_reason(page) == nothing_new, _TICK_SECONDS)
    sensor = "mastodon_stream_sensor"
    page.goto(f"{url}/locations/mastodon_assets/sensors/{sensor}", wait_until="domcontentloaded")
    # The first is the page's head, then status and result of the newest tick.
    page.get_by_text("0 runs requested").nth(2).click()
    page.get_by_text(nothing_new).wait_for()
    assert _newest_run(page) == run
