"""What a person sees and does in Chromium on the dashboard."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr

from mastodon_assets.config.settings import Settings, load_settings
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.support import dashboard as rows
from mastodon_assets_tests.support.ports import free_port
from mastodon_assets_tests.support.web_server import browser_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

_SCRIPT = "<script>document.title = 'taken'</script><img src=//evil.example/x onerror=alert(1)>"
_TOTAL = "#figures dd strong >> nth=0"
_LIVE = "#live[data-mode=live]"


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with browser_page() as page:
        found = page.context.browser
        assert found is not None
        yield found


@pytest.fixture(scope="module")
def settings_here(
    browser: "Browser", database_url: SecretStr, tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    """After `browser`: without one nothing needs to be started."""
    with transaction(database_url) as connection:
        rows.fill(connection)
        rows.add_post(connection, 1, _SCRIPT, hashtags=["مرحبا", "日本語"])
        rows.add_post(connection, 2, "soon deleted", label="negative")
        rows.add_post(connection, 3, "a sad secret", is_sensitive=True, label="negative")
    return load_settings(
        database_url=database_url,
        mastodon_assets_home=tmp_path_factory.mktemp("dashboard"),
        dashboard_password=rows.PASSWORD,
    )


@pytest.fixture(scope="module")
def url(settings_here: Settings) -> Iterator[str]:
    with rows.served(settings_here) as served:
        yield served


@pytest.fixture
def open_page(browser: "Browser", url: str) -> Iterator[Any]:
    """`open_page(path, **options of the context)`; fails at the end if another host was asked."""
    contexts: list[BrowserContext] = []
    hosts: set[str] = set()
    errors: list[str] = []

    def open_(path: str = "/", **options: Any) -> "Page":
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "console",
            lambda message: errors.append(message.text) if message.type == "error" else None,
        )
        page.goto(f"{url}{path}")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert hosts == {urlsplit(url).netloc}
    assert errors == []


def _add_posts(settings: Settings, count: int) -> None:
    with transaction(settings.postgres_url) as connection:
        rows.add_minute(connection, datetime.now(UTC), {"en": count})
        rows.change(connection)


def _wait_for_change(page: "Page", before: str) -> None:
    """Wait until the number of posts is another one."""
    page.wait_for_function(
        "before => document.querySelector('#figures strong').innerText !== before", arg=before
    )


def _log_in(page: "Page") -> None:
    page.get_by_label("Password").fill(rows.PASSWORD)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Newest posts").wait_for()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_page_and_nothing_fails(
    open_page: Any, width: int, scheme: str
) -> None:
    page = open_page("/", viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.locator(_LIVE).wait_for()
    for summary in page.get_by_text("Table", exact=True).all():
        summary.click()
    is_narrow = width < 640
    shown = page.locator("#posts .chart.narrow" if is_narrow else "#posts .chart.broad")
    assert shown.is_visible()
    assert page.locator("#trends th", has_text="#مرحبا").is_visible()
    assert _overflow(page) <= 0
    page.get_by_role("link", name="Posts", exact=True).click()
    _log_in(page)
    assert _overflow(page) <= 0


def _overflow(page: "Page") -> int:
    wide: int = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    return wide


def test_a_commit_changes_its_sections_singly_and_never_one_that_has_the_focus(
    open_page: Any, settings_here: Settings
) -> None:
    page = open_page("/?period=1h")
    page.locator(_LIVE).wait_for()
    page.evaluate("for (const id of ['minutes', 'model']) document.getElementById(id).mark = id")
    summary = page.locator("#minutes summary")
    summary.focus()
    page.keyboard.press("Enter")
    before = page.locator(_TOTAL).inner_text()
    _add_posts(settings_here, 700)
    _wait_for_change(page, before)
    # Its new numbers wait until the focus has gone.
    assert page.evaluate("document.getElementById('minutes').mark") == "minutes"
    assert page.evaluate("document.activeElement.innerText") == "Table"
    page.get_by_role("button", name="Pause updates").focus()
    page.wait_for_function("document.getElementById('minutes').mark === undefined")
    assert page.evaluate("document.getElementById('model').mark") == "model"
    # What a person opened stays open.
    assert page.locator("#minutes details").get_attribute("open") is not None
    assert page.locator("#minutes svg title").first.is_hidden()


def test_a_paused_page_stays_as_it_is_and_catches_up(
    open_page: Any, settings_here: Settings
) -> None:
    paused, other = open_page("/?period=1h"), open_page("/?period=1h")
    for page in (paused, other):
        page.locator(_LIVE).wait_for()
    button = paused.get_by_role("button", name="Pause updates")
    button.click()
    paused.locator("#live[data-mode=paused]").wait_for()
    before = paused.locator(_TOTAL).inner_text()
    _add_posts(settings_here, 900)
    _wait_for_change(other, before)
    assert paused.locator(_TOTAL).inner_text() == before
    resume = paused.get_by_role("button", name="Resume updates")
    assert resume.get_attribute("aria-pressed") == "true"
    resume.click()
    _wait_for_change(paused, before)


@pytest.mark.parametrize("width", [390, 1280])
def test_each_filter_of_the_form_is_in_the_link_and_in_the_numbers(
    open_page: Any, width: int
) -> None:
    page = open_page("/", viewport={"width": width, "height": 900})
    form = page.get_by_role("form", name="Filters")
    form.locator("select[name=period]").select_option("30d")
    form.locator("select[name=language]").select_option("de")
    form.locator("input[name=hashtag]").fill("tea")
    form.locator("select[name=server]").select_option("one.example")
    form.get_by_role("button", name="Show").click()
    page.wait_for_url("**period=30d**")
    for part in ("language=de", "hashtag=tea", "server=one.example"):
        assert part in page.url
    assert form.locator("select[name=server]").input_value() == "one.example"
    # Each view says which of them it does not apply.
    page.locator("#servers .ignored", has_text="Not filtered by language or hashtag.").wait_for()
    form.get_by_role("link", name="Reset").click()
    form.get_by_text("Days", exact=True).click()
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
    for name in ("from", "to"):
        form.locator(f"input[name={name}]").fill(yesterday)
    form.get_by_role("button", name="Show").click()
    page.wait_for_url("**from=**")
    per_day = 24 * sum(rows.PER_HOUR.values())
    page.locator("#figures", has_text=f"{per_day:,}").wait_for()
    page.locator("#figures", has_text=f"{yesterday} to {yesterday}").wait_for()


def test_filters_work_by_keyboard_alone(open_page: Any) -> None:
    page = open_page("/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.innerText") == "Skip to the content"
    page.keyboard.press("Enter")
    names = []
    for _ in range(12):
        page.keyboard.press("Tab")
        name = page.evaluate("document.activeElement.name || document.activeElement.id")
        names.append(name)
        if name == "language":
            page.keyboard.press("d")
        if name == "hashtag":
            page.keyboard.type("#Tea")
            page.keyboard.press("Enter")
            break
    assert names[0] == "pause"
    assert names[-3:] == ["period", "language", "hashtag"]
    page.wait_for_url("**hashtag=%23Tea**")
    assert "language=de" in page.url
    assert page.locator("input[name=hashtag]").input_value() == "tea"
    page.locator("#week .ignored", has_text="Not filtered by hashtag.").wait_for()


def test_everything_is_there_without_javascript(open_page: Any) -> None:
    page = open_page("/?period=24h", java_script_enabled=False)
    assert page.locator("#posts .chart.broad svg").is_visible()
    assert page.get_by_role("button", name="Pause updates").is_hidden()
    page.locator("#languages summary").click()
    assert page.locator("#languages table").is_visible()
    page.locator("select[name=language]").select_option("de")
    page.get_by_role("button", name="Show").click()
    assert "language=de" in page.url
    page.get_by_text("Load newer data").click()
    assert "period=24h&language=de" in page.url
    page.get_by_role("link", name="Posts", exact=True).click()
    page.get_by_label("Password").fill(rows.PASSWORD)
    page.get_by_role("button", name="Log in").click()
    assert page.get_by_text("<script>document.title").is_visible()


def test_posts_are_text_warnings_are_folded_and_deleted_ones_disappear(
    open_page: Any, settings_here: Settings
) -> None:
    page = open_page("/posts?period=24h")
    _log_in(page)
    assert "period=24h" in page.url
    assert page.title().startswith("Posts")
    assert page.get_by_text("<script>document.title").is_visible()
    assert page.get_by_text("a sad secret").is_hidden()
    page.get_by_text("Content warning: show the text").click()
    assert page.get_by_text("a sad secret").is_visible()
    page.locator(_LIVE).wait_for()
    page.get_by_role("button", name="Pause updates").focus()
    deleted = page.get_by_text("soon deleted")
    deleted.wait_for()
    with transaction(settings_here.postgres_url) as connection:
        rows.remove_post(connection, 2)
    deleted.wait_for(state="detached")
    assert page.get_by_text("a sad secret").is_visible()
    page.get_by_role("button", name="Log out").click()
    page.get_by_label("Password").wait_for()


def test_a_stream_that_was_cut_comes_back_with_what_was_missed(
    browser: "Browser", settings_here: Settings
) -> None:
    port = free_port()
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(60_000)
    try:
        with rows.served(settings_here, port) as url:
            page.goto(f"{url}/?period=1h")
            page.locator(_LIVE).wait_for()
            before = page.locator(_TOTAL).inner_text()
        page.locator("#live[data-mode=waiting]").wait_for()
        assert page.locator("#mode").inner_text() == "Reconnecting"
        _add_posts(settings_here, 1100)
        with rows.served(settings_here, port):
            page.locator(_LIVE).wait_for()
            _wait_for_change(page, before)
    finally:
        context.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_posts_are_labelled_by_one_key_each(
    open_page: Any, settings_here: Settings, width: int
) -> None:
    coder = f"coder-{width}"
    with transaction(settings_here.postgres_url) as connection:
        for id_, text in ((90, "happy to be here"), (91, "what a day")):
            if width == 390:
                rows.add_post(connection, id_, text)
            connection.execute(
                "INSERT INTO masto.annotation_sample"
                " (id, drawn_at, stratum_posts, place, is_training, stratum)"
                " VALUES (%s, now(), 2, %s, false, 'en, positive, lower half')"
                " ON CONFLICT DO NOTHING",
                (id_, id_),
            )
    page = open_page("/posts", viewport={"width": width, "height": 900})
    _log_in(page)
    page.get_by_role("link", name="Label posts by hand").click()
    # A letter in the name labels nothing.
    page.get_by_label("Your name").fill(coder)
    page.keyboard.press("Enter")
    page.get_by_text("happy to be here").wait_for()
    is_wider = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    assert not page.evaluate(is_wider)
    page.keyboard.press("n")
    page.get_by_text("what a day").wait_for()
    page.keyboard.press("b")
    page.get_by_text("happy to be here").wait_for()
    page.keyboard.press("p")
    page.get_by_text("what a day").wait_for()
    page.get_by_role("button", name="Unsure").click()
    page.get_by_text("Nothing is left to label.").wait_for()
    with transaction(settings_here.postgres_url) as connection:
        stored = connection.execute(
            "SELECT label FROM masto.annotations WHERE coder = %s ORDER BY id", (coder,)
        ).fetchall()
    assert stored == [("positive",), ("unsure",)]
