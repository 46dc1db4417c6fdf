"""What a user sees in Chromium on `dagster dev`, from the first click to a chart."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mastodon_assets.settings import Settings
from mastodon_assets.warehouse.registry import TOOTS_RAW
from mastodon_assets_tests.browser.served import browser_page, dagster_dev
from mastodon_assets_tests.records import upsert

if TYPE_CHECKING:
    from playwright.sync_api import Page

_RUN_SECONDS = 300
import sys
def _t(): print(round(time.monotonic(),1), sys._getframe(1).f_lineno, file=sys.stderr)

_NEWEST_RUN = "{ runsOrError(limit: 1) { ... on Runs { results { runId jobName status } } } }"
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
    with dagster_dev(settings.model_copy(update={"refresh_min_seconds": 3600}), tmp_path) as base:
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
    answer = page.evaluate(_POST, _NEWEST_RUN)
    (run,) = answer["data"]["runsOrError"]["results"]
    return dict(run)


def _finished_run(page: "Page") -> dict[str, Any]:
    deadline = time.monotonic() + _RUN_SECONDS
    while (run := _newest_run(page))["status"] not in ("SUCCESS", "FAILURE", "CANCELED"):
        assert time.monotonic() < deadline, f"not done after {_RUN_SECONDS} s: {run}"
        time.sleep(1)
    return run


def test_a_click_materializes_everything_and_the_page_shows_columns_a_chart_and_the_sensor(
    page: "Page", url: str, produce: Callable[..., None], settings: Settings
) -> None:
    _t();page.goto(f"{url}/asset-groups", wait_until="domcontentloaded")
    _t();page.get_by_role("button", name="Materialize all (20)").click()
    _t();page.get_by_text("Launched run").wait_for()
    # Not before the click, or the sensor might have asked first; long before the run reads Kafka.
    _t();produce(_toots(50))
    _t();run = _finished_run(page)
    assert (run["jobName"], run["status"]) == ("__ASSET_JOB", "SUCCESS")
    _t();page.goto(f"{url}/runs/{run['runId']}", wait_until="domcontentloaded")
    _t();page.get_by_text("Success", exact=True).first.wait_for()

    _t();page.goto(f"{url}/assets/toots_raw", wait_until="domcontentloaded")
    _t();page.get_by_text("Row count").wait_for()
    _t();page.get_by_text("50", exact=True).first.wait_for()
    _t();page.get_by_placeholder("Filter columns").wait_for()
    for column in TOOTS_RAW.columns:
        _t();page.get_by_text(column.comment.replace("`", ""), exact=True).last.wait_for()

    _t();page.goto(f"{url}/assets/part5_sentiment_distribution", wait_until="domcontentloaded")
    _t();page.get_by_text("[Show Markdown]").click()
    preview = page.get_by_role("img", name="preview")
    preview.wait_for()
    assert preview.evaluate("image => image.naturalWidth") == 360
    assert (settings.reports_dir / "part5_sentiment_distribution.png").is_file()

    sensor = "mastodon_stream_sensor"
    _t();page.goto(f"{url}/locations/mastodon_assets/sensors/{sensor}", wait_until="domcontentloaded")
    _t();page.get_by_text("0 runs requested").nth(2).click()
    _t();page.get_by_text("Skip reason:").wait_for()
    _t();page.get_by_text("nothing new: tables, scores and charts show all messages").wait_for()
    assert _newest_run(page) == run
