"""The web page on a port and a DAGSTER_HOME of its own, and a Chromium to look at it with."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from mastodon_assets.config.settings import Settings, as_environment
from mastodon_assets.orchestration.dagster_home import dagster_home
from mastodon_assets_tests.support.ports import free_port

if TYPE_CHECKING:
    from playwright.sync_api import Page

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_UP_SECONDS = 120
_DOWN_SECONDS = 60


@contextmanager
def web_page(settings: Settings, folder: Path) -> Iterator[str]:
    """The base URL of `mastodon-assets ui`, started in `folder` with these settings."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "mastodon_assets.cli.main", "ui", "--port", str(port)]
    environment = {
        **os.environ,
        **as_environment(settings),
        "DAGSTER_HOME": str(dagster_home(folder)),
    }
    log = folder / "ui.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until_up(url, process, log)
        yield url
    finally:
        _end(process)


def wait_until_up(
    url: str, process: "subprocess.Popen[Any]", log: Path, path: str = "/server_info"
) -> None:
    """Wait until the web page answers; fail with the end of `log` if its process ends first."""
    deadline = time.monotonic() + _UP_SECONDS
    while True:
        try:
            httpx.get(f"{url}{path}", timeout=5).raise_for_status()
            return
        except httpx.HTTPError:
            has_ended = process.poll() is not None
        if has_ended or time.monotonic() > deadline:
            pytest.fail(f"the web page is not up:\n{log.read_text()[-3000:]}")
        time.sleep(0.2)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """As a user ends it, by Ctrl-C; what of its group is left then is killed."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(_DOWN_SECONDS)
    finally:
        if _is_any_left(process.pid):
            os.killpg(process.pid, signal.SIGKILL)


def _is_any_left(group: int) -> bool:
    """Whether a process of that group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def browser_page() -> Iterator["Page"]:
    """A page of the machine's Chromium; without one the test is skipped, in CI it fails."""
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if chromium is None:
        reason = "no Chromium in PATH; install it: apt-get install -y chromium"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with sync_playwright() as playwright:
        # No sandbox: it needs rights that containers do not give.
        arguments = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
        arguments += ["--disable-background-networking", "--disable-component-update"]
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        try:
            page = browser.new_page(viewport={"width": 1600, "height": 1000})
            page.set_default_timeout(30_000)
            yield page
        finally:
            browser.close()
