"""The pages, the files of each view and the posts behind their login, on a real database."""

import csv
import io
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from mastodon_assets.config.settings import Settings, load_settings
from mastodon_assets.dashboard.access_log import FILE
from mastodon_assets.dashboard.application import build_application
from mastodon_assets.dashboard.explanations import Explanations
from mastodon_assets.dashboard.views.registry import VIEWS
from mastodon_assets.embedded import stack as embedded
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.roles import ROLES, create_roles
from mastodon_assets_tests.support import dashboard as rows
from mastodon_assets_tests.support.databases import new_database

_SCRIPT = "<script>document.title = 'taken'</script><img src=//evil.example/x onerror=alert(1)>"
_ALL = "period=all"
_HTML = {"accept": "text/html"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dashboard")


@pytest.fixture(scope="module")
def pages(database_url: SecretStr, folder: Path) -> Iterator[TestClient]:
    """On a database with eight days of numbers and three posts."""
    with transaction(database_url) as connection:
        rows.fill(connection)
        rows.add_post(connection, 1, _SCRIPT, hashtags=["tea", "<b>"])
        rows.add_post(connection, 2, "a sad secret", is_sensitive=True, label="negative")
        rows.add_post(connection, 3, "مرحبا", lang="ar", username="بكر@one.example")
    settings = load_settings(
        database_url=database_url, mastodon_assets_home=folder, dashboard_password=rows.PASSWORD
    )
    with TestClient(build_application(settings), base_url="http://127.0.0.1:3300") as client:
        yield client


def _rows(pages: TestClient, view: str, query: str = "") -> list[dict[str, str]]:
    answer = pages.get(f"/views/{view}.csv?{query}")
    assert answer.status_code == 200, answer.text
    return list(csv.DictReader(io.StringIO(answer.text)))


def _json(pages: TestClient, view: str, query: str = "") -> dict[str, Any]:
    answer = pages.get(f"/views/{view}.json?{query}")
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def test_the_page_has_every_view_with_chart_table_and_files_and_nothing_inline(
    pages: TestClient,
) -> None:
    answer = pages.get("/")
    assert answer.status_code == 200
    for view in VIEWS.values():
        section = re.search(rf'<section id="{view.name}".*?</section>', answer.text, re.DOTALL)
        assert section, view.name
        assert 'class="empty"' not in section[0], section[0]
        assert "<table>" in section[0]
        assert f"/views/{view.name}.csv" in section[0]
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src")
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    assert not re.search(r"<style| style=|<script(?! src=)| on\w+=", answer.text)
    # Nothing of another host is requested; the link to Dagster is no request.
    assert not re.search(r'(src|href)="(https?:)?//(?!127\.0\.0\.1:3000")', answer.text)
    for link in re.findall(r'(?:src|href)="(/static/[^"]+)"', answer.text):
        kept = pages.get(link)
        assert kept.status_code == 200
        assert "immutable" in kept.headers["cache-control"]


def test_numbers_are_those_of_the_tables_with_n_zone_and_what_is_withheld(
    pages: TestClient,
) -> None:
    hours = rows.DAYS * 24
    counts = {row["lang"]: int(row["toots_count"]) for row in _rows(pages, "languages", _ALL)}
    assert counts == {lang: posts * hours for lang, posts in rows.PER_HOUR.items()}
    (english,) = (r for r in _rows(pages, "language-sentiment", _ALL) if r["lang"] == "en")
    assert (english["n_pos"], english["n_neg"]) == (str(3 * hours), str(2 * hours))
    assert float(english["share_pos"]) == 0.5
    assert float(english["share_pos_low"]) < 0.5 < float(english["share_pos_high"])
    document = _json(pages, "languages", "period=all")
    assert document["time_zone"] == "UTC"
    assert document["population"].startswith("Public posts of the observed servers")
    assert any(note.startswith("n = ") for note in document["notes"])
    lateness = {row["lateness"]: int(row["toots_count"]) for row in _rows(pages, "lateness")}
    assert set(lateness) == {
        *("received_1m", "received_10m", "received_1h", "received_1d", "received_later"),
    }
    (server,) = _rows(pages, "servers")
    assert (server["deletes_of_stored"], server["deletes_count"]) == ("12", "20")
    (source,) = _rows(pages, "sources")
    assert (source["state"], source["unrecovered"]) == ("connected", "1")
    model = _json(pages, "model")
    assert model["warning"].startswith("For demonstration only")
    facts = {row["fact"]: row["value"] for row in model["rows"]}
    assert facts["AUC (1 is perfect, 0.5 is chance)"] == "0.870 (0.860 to 0.880)"


@pytest.mark.parametrize(("client", "status"), [("127.0.0.1", 200), ("192.0.2.1", 404)])
def test_metrics_are_for_programs_on_this_machine(
    database_url: SecretStr, folder: Path, client: str, status: int
) -> None:
    settings = load_settings(database_url=database_url, mastodon_assets_home=folder)
    app = build_application(settings, lambda: b"mastodon_assets_database_up 1.0\n")
    with TestClient(app, base_url="http://127.0.0.1:3300", client=(client, 50000)) as pages:
        assert pages.get("/metrics").status_code == status


def test_open_incidents_are_named_with_the_sources(
    pages: TestClient, database_url: SecretStr
) -> None:
    with transaction(database_url) as connection:
        for number in range(7):
            connection.execute(
                "INSERT INTO masto.alerts (fact, kind, what, since, opened_at, closed_at,"
                " deliveries) VALUES (%(fact)s, 'disk_low', %(fact)s, now(), '2026-11-20 10:00Z',"
                " CASE WHEN %(fact)s = 'fact 0' THEN now() END, '{}')",
                {"fact": f"fact {number}"},
            )
    try:
        warning = _json(pages, "sources", "server=one.example")["warning"]
        assert warning.splitlines() == [
            *(f"fact {number} (since 20 Nov 2026, 10:00 UTC)" for number in range(1, 6)),
            "1 more: mastodon-assets alerts list",
        ]
    finally:
        with transaction(database_url) as connection:
            connection.execute("DELETE FROM masto.alerts")


def test_trends_count_accounts_so_that_a_flood_by_one_does_not_trend(pages: TestClient) -> None:
    trends = _rows(pages, "trends")
    assert [row["hashtag"] for row in trends] == ["tea", "مرحبا", "日本語"]
    assert trends[0]["accounts"] == "9"
    # The flood has the most posts.
    posts = {row["hashtag"]: int(row["n_toots"]) for row in _rows(pages, "hashtag-sentiment")}
    assert max(posts, key=lambda tag: posts[tag]) == "flood"


def test_filters_narrow_what_they_apply_to_and_say_what_they_do_not(pages: TestClient) -> None:
    everything = _json(pages, "posts", "period=all")
    german = _json(pages, "posts", "period=all&language=DE")
    assert {row["lang"] for row in german["rows"]} == {"de"}
    assert sum(row["toots_count"] for row in everything["rows"]) == 10 * rows.DAYS * 24
    tagged = _json(pages, "posts", "period=all&hashtag=%23TeA")
    assert sum(row["toots_count"] for row in tagged["rows"]) == 2 * 9
    assert _json(pages, "posts", "period=all&server=other.example")["rows"] == []
    by_minute = _json(pages, "posts", "period=1h&language=en")
    assert {row["toots_count"] for row in by_minute["rows"]} == {2}
    assert _json(pages, "model", "language=de")["filters"]["not_applied"] == ["language"]
    page = pages.get("/?period=30d&language=de&hashtag=tea&server=one.example").text
    assert "Not filtered by hashtag." in page
    assert "Not filtered by language or hashtag or server." in page
    assert '<option value="30d" selected>' in page
    assert 'href="/views/posts.csv?period=30d&amp;language=de' in page
    week = _json(pages, "week", "period=all&language=en")
    assert {row["mean_toots"] for row in week["rows"]} <= {6.0, 0.0}
    first = everything["rows"][0]["period_start"][:10]
    one_day = _json(pages, "posts", f"from={first}&to={first}")
    assert {row["period_start"][:10] for row in one_day["rows"]} == {first}


def test_each_chart_is_an_svg_and_a_png_and_a_view_without_one_says_so(pages: TestClient) -> None:
    for view in VIEWS:
        svg = pages.get(f"/views/{view}.svg")
        if view in ("sources", "model"):
            assert svg.status_code == 404
            continue
        assert svg.headers["content-type"] == "image/svg+xml"
        assert svg.text.startswith("<svg ")
    png = pages.get("/views/trends.png")
    assert png.headers["content-type"] == "image/png"
    assert png.content.startswith(b"\x89PNG")
    assert pages.get("/views/posts.xls").status_code == 404
    missing = pages.get("/views/nothing.csv")
    assert (missing.status_code, missing.text.partition(";")[0]) == (404, "there is no such view")


def test_wrong_parameters_foreign_pages_and_foreign_hosts_are_refused(pages: TestClient) -> None:
    wrong = pages.get("/?period=<script>", headers=_HTML)
    assert wrong.status_code == 400
    assert "period=&lt;script&gt;: allowed: 1h," in wrong.text
    assert pages.get("/views/posts.csv?from=x").text.startswith("from=x: allowed: a day")
    assert pages.get("/", headers={"host": "evil.example"}).status_code == 400
    foreign = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"}
    assert pages.get("/views/posts.json", headers=foreign).status_code == 403
    login = {"password": rows.PASSWORD}
    evil = pages.post("/posts/login", data=login, headers={"origin": "https://evil.example"})
    assert evil.status_code == 403
    assert pages.get("/static/../application.py").status_code == 404


def test_posts_are_behind_a_login_escaped_folded_and_every_look_is_logged(
    pages: TestClient, database_url: SecretStr, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "a sad secret" not in pages.get("/posts").text
    assert pages.get("/posts/events").text.endswith("event: over\ndata: {}\n\n")
    refused = pages.post("/posts/login", data={"password": "wrong"})
    assert refused.status_code == 403
    assert "That is not the password." in refused.text
    query = "hashtag=tea&period=30d"
    entered = pages.post(
        "/posts/login",
        data={"password": rows.PASSWORD, "query": f"{query}\r\nx: y"},
        follow_redirects=False,
    )
    assert entered.status_code == 303
    assert entered.headers["location"].startswith("/posts?hashtag=tea")
    assert "x" not in entered.headers
    cookie = entered.headers["set-cookie"]
    assert {"HttpOnly", "Path=/posts", "SameSite=strict"} <= set(cookie.split("; "))
    page = pages.get("/posts").text
    assert "&lt;script&gt;document.title" in page
    assert "<img src=//evil" not in page
    assert re.search(r"<details class=\"sensitive\".*?a sad secret", page, re.DOTALL)
    assert "#&lt;b&gt;" in page
    assert "probability of positive 0.90" in page
    assert page.index("مرحبا") < page.index("a sad secret") < page.index("&lt;script&gt;")
    narrowed = pages.get(f"/posts?{query}").text
    assert "a sad secret" not in narrowed
    words = (("calm", 1.3), ("<i>", -0.5))
    monkeypatch.setattr(Explanations, "of", lambda _, posts: [words] * len(posts))
    page = pages.get("/posts").text
    assert '<span class="word positive"><bdi>calm</bdi> +1.3</span>' in page
    assert '<span class="word negative"><bdi>&lt;i&gt;</bdi> −0.5</span>' in page
    # They would give away what is folded.
    assert re.search(r"a sad secret</p>\s*<p class=\"words\">.*?</details>", page, re.DOTALL)
    with transaction(database_url) as connection:
        rows.remove_post(connection, 2)
    assert "a sad secret" not in pages.get("/posts").text
    log = [json.loads(line) for line in (folder / FILE).read_text().splitlines()]
    assert [line["event"] for line in log] == ["login refused", "login", *["look"] * 4]
    assert [line.get("posts") for line in log] == [None, None, 3, 1, 3, 2]
    assert log[3]["filters"] == "period=30d&hashtag=tea"
    assert "secret" not in (folder / FILE).read_text()
    assert rows.PASSWORD not in (folder / FILE).read_text()
    # What cannot be logged is not shown.
    monkeypatch.setattr("mastodon_assets.dashboard.access_log.AccessLog._append", _cannot_write)
    unlogged = pages.get("/posts")
    assert unlogged.status_code == 503
    assert "document.title" not in unlogged.text
    monkeypatch.undo()
    assert pages.post("/posts/logout").status_code == 200
    pages.cookies.set("mastodon_assets_session", cookie.partition("=")[2].partition(";")[0])
    assert "document.title" not in pages.get("/posts").text
    pages.cookies.clear()


def _cannot_write(*_arguments: object) -> None:
    from mastodon_assets.dashboard.access_log import AccessLogError

    raise AccessLogError("cannot write the access log")


def test_an_empty_database_says_so_and_the_posts_say_how_to_turn_them_on(
    fresh_database_url: SecretStr, tmp_path: Path
) -> None:
    settings = load_settings(database_url=fresh_database_url, mastodon_assets_home=tmp_path)
    with TestClient(build_application(settings), base_url="http://localhost:3300") as pages:
        page = pages.get("/").text
        assert page.count("No data yet: no post has reached the tables.") == 11
        assert "No source yet" in page
        assert "No model yet" in page
        assert "no data yet · checked" in page
        for view in VIEWS:
            assert pages.get(f"/views/{view}.csv").text.count("\n") == 1
            assert _json(pages, view)["rows"] == []
            assert pages.get(f"/views/{view}.svg").status_code == 404
        off = pages.get("/posts").text
        assert "DASHBOARD_PASSWORD" in off
        assert "<form" not in off
        assert pages.post("/posts/login", data={"password": ""}).status_code == 403
        assert not (tmp_path / FILE).exists()


def test_a_language_that_is_declared_with_capitals_is_found_by_what_the_form_offers(
    fresh_database_url: SecretStr, tmp_path: Path
) -> None:
    with transaction(fresh_database_url) as connection:
        rows.add_minute(connection, datetime.now(UTC), {"zh-TW": 3, "zh-CN": 5})
        rows.add_post(connection, 1, "traditional", lang="zh-TW")
        rows.add_post(connection, 2, "simplified", lang="zh-CN")
        for lang in ("zh-TW", "pt_BR"):
            connection.execute(
                "INSERT INTO masto.hourly_activity (hour, instance, lang, toots_count,"
                " accounts_count, received_1m, received_10m, received_1h, received_1d,"
                " received_later)"
                " VALUES (date_trunc('hour', now()), 'one.example', %s, 3, 1, 3, 0, 0, 0, 0)",
                (lang,),
            )
    settings = load_settings(
        database_url=fresh_database_url,
        mastodon_assets_home=tmp_path,
        dashboard_password=rows.PASSWORD,
    )
    with TestClient(build_application(settings), base_url="http://localhost:3300") as pages:
        page = pages.get("/?language=zh-TW").text
        assert "<option selected>zh-TW</option>" in page
        assert "<option>zh-tw</option>" not in page
        assert pages.get("/?language=pt_BR").status_code == 200
        for query in ("period=1h&language=zh-TW", "period=24h&language=zh-TW"):
            found = _json(pages, "posts", query)["rows"]
            assert [(row["lang"], row["toots_count"]) for row in found] == [("zh-TW", 3)]
        pages.post("/posts/login", data={"password": rows.PASSWORD})
        posts = pages.get("/posts?language=zh-TW").text
        assert "traditional" in posts
        assert "simplified" not in posts


def test_readers_see_every_view_and_no_post_and_moderators_see_posts(
    stack: embedded.Connection, tmp_path: Path
) -> None:
    passwords = {role: SecretStr(f"of {role} / @") for role in ROLES}
    with new_database(stack) as url:
        create_roles(url, passwords)
        with transaction(url) as connection:
            rows.fill(connection)
            rows.add_post(connection, 1, "seen by moderators")
        settings = load_settings(
            database_url=url,
            mastodon_assets_home=tmp_path,
            dashboard_password=rows.PASSWORD,
            masto_reader_password=passwords["masto_reader"],
            masto_moderator_password=passwords["masto_moderator"],
        )
        with TestClient(build_application(settings), base_url="http://localhost:3300") as pages:
            assert 'class="empty"' not in pages.get("/").text
            pages.post("/posts/login", data={"password": rows.PASSWORD})
            assert "seen by moderators" in pages.get("/posts").text
        as_reader = settings.model_copy(update={"masto_moderator_password": None})
        only_reader = _with_reader_alone(as_reader)
        with TestClient(build_application(only_reader), base_url="http://localhost:3300") as pages:
            pages.post("/posts/login", data={"password": rows.PASSWORD})
            page = pages.get("/posts").text
            assert "seen by moderators" not in page
            assert "permission denied" in page


def _with_reader_alone(settings: Settings) -> Settings:
    """As in a container that knows the reader's login only."""
    from mastodon_assets.dashboard.database import reader_url

    return settings.model_copy(
        update={"database_url": reader_url(settings), "masto_reader_password": None}
    )
