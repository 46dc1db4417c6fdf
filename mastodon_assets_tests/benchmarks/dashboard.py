"""The dashboard on numbers of five million posts: first content, updates, fifty viewers, axe-core.

`python -m mastodon_assets_tests.benchmarks.dashboard DATABASE_URL [--axe axe.min.js]`

The database must be empty. The hourly tables are filled directly, as a year of two servers in
twenty languages would fill them; no page reads posts. axe-core is the file of that name from npm.
"""

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
from pydantic import SecretStr
from rich.console import Console

from mastodon_assets.warehouse.migrate import migrate
from mastodon_assets.warehouse.rows import count_rows
from mastodon_assets.warehouse.tables import TABLES
from mastodon_assets_tests.support.dashboard import add_minute, add_model, change
from mastodon_assets_tests.support.hourly_rows import sum_days
from mastodon_assets_tests.support.ports import free_port
from mastodon_assets_tests.support.web_server import browser_page, wait_until_up

_POSTS = 5_000_000
_DAYS = 365
_VIEWERS = 50
_FILTERS = ("period=1h", "period=7d", "period=24h&language=xb")
_PAGES = ("", "period=1h", "period=24h&language=xb", "period=365d", "period=all")
# Rows per hour: two servers, twenty languages of which each has half the posts of the one before.
_FILL = """
CREATE TEMPORARY TABLE hours AS
SELECT date_trunc('hour', now(), 'UTC') - number * interval '1 hour' AS hour
  FROM generate_series(0, %(hours)s - 1) number;
CREATE TEMPORARY TABLE posts AS
SELECT hour, server || '.example' AS instance, 'x' || chr(96 + lang) AS lang,
       greatest(1, (%(posts)s * 0.6 / %(hours)s / 2 / power(1.5, lang) * (0.3 + random())))::bigint
           AS n
  FROM hours, generate_series(1, 2) server, generate_series(1, 20) lang;
INSERT INTO masto.hourly_activity (hour, instance, lang, toots_count, accounts_count, received_1m,
       received_10m, received_1h, received_1d, received_later)
SELECT hour, instance, lang, n, greatest(1, n / 2), n, 0, 0, 0, 0 FROM posts;
INSERT INTO masto.hourly_sentiment (hour, instance, lang, outcome, toots_count, total_prob_pos)
SELECT hour, instance, lang, outcome, greatest(1, n / 4), 0
  FROM posts, unnest(ARRAY['positive', 'neutral', 'negative', 'no_words']) outcome;
INSERT INTO masto.sentiment_totals (day, outcome, model_version, toots_count, prob_sum)
SELECT (hour AT TIME ZONE 'UTC')::date, outcome, 'v1', sum(toots_count), 0
  FROM masto.hourly_sentiment GROUP BY 1, 2;
INSERT INTO masto.hourly_hashtags (hour, hashtag, instance, lang, toots_count, accounts_count,
       n_pos, n_neu, n_neg)
SELECT hour, 'tag' || (tag * 7 + extract(day FROM hour)::int) %% 400, '1.example', 'xa', 6, 5, 2, 2,
       2
  FROM hours, generate_series(1, 60) tag
    ON CONFLICT DO NOTHING;
INSERT INTO masto.hourly_hashtag_accounts (hour, hashtag, accounts_count)
SELECT hour, hashtag, accounts_count FROM masto.hourly_hashtags;
INSERT INTO masto.hourly_deletes (hour, instance, deletes_count, stored_count)
SELECT hour, '1.example', 9, 4 FROM hours;
INSERT INTO masto.toot_metrics_windowed (window_start, window_end, toots_count, total_length, lang)
SELECT minute, minute + interval '1 minute', 3, 100, 'x' || chr(96 + lang)
  FROM generate_series(date_trunc('minute', now()) - interval '30 days', now(), '1 minute') minute,
       generate_series(1, 8) lang
"""


def main() -> None:
    """Fill, measure, print as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("database_url")
    parser.add_argument("--seconds", type=float, default=60, help="of the fifty viewers")
    parser.add_argument("--axe", type=Path, help="axe.min.js of axe-core")
    arguments = parser.parse_args()
    migrate(SecretStr(arguments.database_url))
    with psycopg.connect(arguments.database_url, autocommit=True) as connection:
        _fill(connection)
        result: dict[str, Any] = {"rows": _rows(connection)}
        with _server(arguments.database_url) as (url, process):
            result["mebibytes_at_start"] = _mebibytes(process)
            result["seconds_of_pages"] = _pages(url)
            result["bytes_of_page"] = _sizes(url)
            result["first_content_ms"], result["axe"] = _in_browser(url, arguments.axe)
            result["seconds_behind_commit"] = _behind(url, connection)
            result |= _watched(url, process, arguments.database_url, arguments.seconds)
    Console().print_json(json.dumps(result))


def _fill(connection: psycopg.Connection[Any]) -> None:
    values = {"hours": _DAYS * 24, "posts": _POSTS}
    for statement in _FILL.split(";\n"):
        connection.execute(statement.encode(), values)
    sum_days(connection)
    add_model(connection, "a corpus")
    connection.execute("VACUUM ANALYZE")


def _rows(connection: psycopg.Connection[Any]) -> dict[str, int]:
    counts = {}
    for table in ("hourly_activity", "hourly_sentiment", "hourly_hashtags"):
        counts[table] = count_rows(connection, TABLES[table])
    row = connection.execute("SELECT sum(toots_count) FROM masto.hourly_activity").fetchone()
    counts["posts"] = int(row[0]) if row else 0
    return counts


@contextmanager
def _server(database_url: str) -> Iterator[tuple[str, psutil.Process]]:
    port = free_port()
    command = [sys.executable, "-m", "mastodon_assets.cli.main", "dashboard", "--port", str(port)]
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "DATABASE_URL": database_url,
            "MASTODON_ASSETS_HOME": folder,
        }
        log = Path(folder) / "log"
        with (
            log.open("wb") as output,
            subprocess.Popen(command, env=environment, stdout=output, stderr=output) as process,
        ):
            try:
                url = f"http://127.0.0.1:{port}"
                wait_until_up(url, process, log, path="/health")
                yield url, psutil.Process(process.pid)
            finally:
                process.terminate()


def _pages(url: str) -> dict[str, list[float]]:
    """Seconds of the first request, which reads, and of the second, which does not."""
    seconds: dict[str, list[float]] = {}
    for query in _PAGES:
        seconds[query or "default"] = []
        for _ in range(2):
            started = time.monotonic()
            httpx.get(f"{url}/?{query}", timeout=60).raise_for_status()
            seconds[query or "default"].append(round(time.monotonic() - started, 3))
    return seconds


def _sizes(url: str) -> dict[str, int]:
    page = httpx.get(url, timeout=60)
    return {"sent": int(page.headers["content-length"]), "html": len(page.content)}


def _in_browser(url: str, axe: Path | None) -> tuple[float, dict[str, Any] | None]:
    """First contentful paint of a new browser, and what axe-core finds at both widths."""
    violations: dict[str, Any] | None = None
    with browser_page() as page:
        page.goto(url, wait_until="load")
        entries = "performance.getEntriesByName('first-contentful-paint')"
        page.wait_for_function(f"{entries}.length > 0")
        paint = page.evaluate(f"{entries}[0].startTime")
        browser = page.context.browser
        assert browser is not None
        if axe is not None:
            violations = {}
            for width in (390, 1280):
                for scheme in ("light", "dark"):
                    context = browser.new_context(
                        viewport={"width": width, "height": 900},
                        color_scheme="dark" if scheme == "dark" else "light",
                        bypass_csp=True,
                    )
                    looked_at = context.new_page()
                    looked_at.goto(url)
                    looked_at.add_script_tag(path=axe)
                    found = looked_at.evaluate("axe.run().then(found => found.violations)")
                    violations[f"{width} {scheme}"] = [
                        f"{each['impact']}: {each['id']} ({len(each['nodes'])})" for each in found
                    ]
                    context.close()
    return paint, violations


def _behind(url: str, connection: psycopg.Connection[Any]) -> dict[str, float]:
    """Seconds from a commit to the event that shows it."""
    seconds = []
    with httpx.stream("GET", f"{url}/events?period=1h", timeout=60) as events:
        counts = _counts(events.iter_lines())
        count = next(counts)
        for number in range(15):
            time.sleep(2.5 + number % 3 * 0.4)
            with connection.transaction():
                add_minute(connection, datetime.now(UTC), {"xa": 1000})
                change(connection)
            started = time.monotonic()
            # Less than a thousand leave the hour meanwhile.
            shown = next(each for each in counts if each > count + 500)
            seconds.append(time.monotonic() - started)
            count = shown
    return {"median": round(statistics.median(seconds), 2), "longest": round(max(seconds), 2)}


def _counts(lines: Iterator[str]) -> Iterator[int]:
    """The number of posts in each event of that view."""
    for line in lines:
        if '"name":"minutes"' in line and (found := re.search(r"n = ([0-9,]+) posts", line)):
            yield int(found[1].replace(",", ""))


def _watched(
    url: str, process: psutil.Process, database_url: str, seconds: float
) -> dict[str, Any]:
    """What fifty viewers with three filters cost, while two posts per second arrive."""
    is_over = threading.Event()
    writer = threading.Thread(target=_post, args=(database_url, is_over))
    writer.start()
    try:
        measured, received = asyncio.run(_watch(url, process, seconds))
    finally:
        is_over.set()
        writer.join()
    return {
        "viewers": _VIEWERS,
        "percent_of_a_core": round(measured, 2),
        "events_received": received,
        "mebibytes": _mebibytes(process),
    }


def _post(database_url: str, is_over: threading.Event) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        while not is_over.wait(0.5):
            with connection.transaction():
                add_minute(connection, datetime.now(UTC), {"xa": 1})
                change(connection)


async def _watch(url: str, process: psutil.Process, seconds: float) -> tuple[float, int]:
    limits = httpx.Limits(max_connections=_VIEWERS)
    received = 0
    async with httpx.AsyncClient(timeout=60, limits=limits) as client:

        async def view(number: int) -> None:
            nonlocal received
            query = _FILTERS[number % len(_FILTERS)]
            async with client.stream("GET", f"{url}/events?{query}") as events:
                async for chunk in events.aiter_bytes():
                    received += chunk.count(b"event: section")

        tasks = [asyncio.create_task(view(number)) for number in range(_VIEWERS)]
        # The first update is everything.
        await asyncio.sleep(10)
        received = 0
        before, started = process.cpu_times(), time.monotonic()
        await asyncio.sleep(seconds)
        after, elapsed = process.cpu_times(), time.monotonic() - started
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    used = (after.user + after.system) - (before.user + before.system)
    return 100 * used / elapsed, received


def _mebibytes(process: psutil.Process) -> int:
    return int(process.memory_info().rss / 2**20)


if __name__ == "__main__":
    main()
