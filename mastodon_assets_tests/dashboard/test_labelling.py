"""Labelling in the browser, as the server answers it."""

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from mastodon_assets.config.settings import load_settings
from mastodon_assets.dashboard.access_log import FILE
from mastodon_assets.dashboard.application import build_application
from mastodon_assets.dashboard.poller import _read_state
from mastodon_assets.sentiment.annotation.labels import decided
from mastodon_assets.sentiment.annotation.sample import draw_sample
from mastodon_assets.sentiment.models.registry import record_own_posts
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.support.dashboard import PASSWORD
from mastodon_assets_tests.support.labelled_posts import (
    CHAMPION,
    add_champion,
    add_post,
    empty,
    give_label,
    sample_of,
)

_START = "/posts/label?coder=ada"


@pytest.fixture
def url(database_url: SecretStr) -> SecretStr:
    """Twelve drawn posts, two of each label and half."""
    empty(database_url)
    with transaction(database_url) as connection:
        for id_ in range(12):
            label = ("positive", "neutral", "negative")[id_ % 3]
            text = f"text {id_} <script>alert(1)</script>"
            add_post(connection, id_, text, label=label, prob_pos=id_ / 12)
    draw_sample(database_url, 12)
    return database_url


@pytest.fixture
def pages(url: SecretStr, tmp_path: Path) -> Iterator[TestClient]:
    """The dashboard after the login."""
    settings = load_settings(
        database_url=url, mastodon_assets_home=tmp_path, dashboard_password=PASSWORD
    )
    with TestClient(build_application(settings), base_url="http://127.0.0.1:3300") as client:
        client.post("/posts/login", data={"password": PASSWORD})
        yield client


def _fields(page: str) -> dict[str, str]:
    """The hidden fields of the form."""
    found = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page)
    return {name: html.unescape(value) for name, value in found}


def _label(pages: TestClient, page: str, label: str) -> str:
    """The next page."""
    answer = pages.post("/posts/label", data={**_fields(page), "label": label})
    assert answer.status_code == 200, answer.text
    return answer.text


def test_nobody_labels_without_the_login(pages: TestClient) -> None:
    pages.cookies.clear()
    for answer in (
        pages.get(_START, follow_redirects=False),
        pages.post("/posts/label", data={"label": "positive"}, follow_redirects=False),
    ):
        assert (answer.status_code, answer.headers["location"]) == (303, "/posts")


def test_a_coder_labels_one_post_after_another_and_comes_back(
    pages: TestClient, url: SecretStr, tmp_path: Path
) -> None:
    assert 'href="/posts/label"' in pages.get("/posts").text
    assert 'name="coder"' in pages.get("/posts/label").text
    page = pages.get(_START).text
    order = [post.id for post in sample_of(url).posts]
    assert f"text {order[0]} &lt;script&gt;" in page
    assert "ada: 12 left" in page
    page = _label(pages, page, "positive")
    page = _label(pages, page, "unsure")
    assert "ada: 10 left" in page
    labels = sample_of(url).labels
    assert [labels[id_][0].label for id_ in order[:2]] == ["positive", "unsure"]
    assert _fields(pages.get(_START).text)["id"] == str(order[2])
    assert "bob: 12 left" in pages.get("/posts/label?coder=bob").text
    log = [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()]
    looks = [line for line in log if line["event"] == "label"]
    assert [(line["coder"], line["posts"]) for line in looks] == [*[("ada", 1)] * 4, ("bob", 1)]
    assert "text" not in (tmp_path / FILE).read_text()


def test_the_last_label_can_be_changed(pages: TestClient, url: SecretStr) -> None:
    first = sample_of(url).posts[0].id
    page = _label(pages, pages.get(_START).text, "positive")
    back = re.search(r'href="(/posts/label[^"]*)" data-key="b"', page)
    assert back
    again = pages.get(html.unescape(back[1])).text
    assert _fields(again)["id"] == str(first)
    page = _label(pages, again, "negative")
    assert [each.label for each in sample_of(url).labels[first]] == ["negative"]
    assert "ada: 11 left" in page


def test_a_coder_sees_neither_the_models_label_nor_that_of_others(
    pages: TestClient, url: SecretStr
) -> None:
    for post in sample_of(url).posts:
        give_label(url, post.id, "bob", "neutral")
    page = pages.get(_START).text
    assert "Coders say" not in page
    # Only what the buttons say.
    assert page.count("neutral") == page.count("positive") == page.count("negative") == 1
    assert not re.search("bob|half|prob", page)


def test_who_settles_sees_disputed_posts_and_what_coders_said(
    pages: TestClient, url: SecretStr
) -> None:
    first, second, *_ = (post.id for post in sample_of(url).posts)
    for coder, label in (("ada", "positive"), ("bob", "negative")):
        give_label(url, second, coder, label)
    page = pages.get("/posts/label?coder=cleo&languages=en,de&settle=1").text
    assert "Coders say: negative, positive" in page
    assert "cleo: 1 left" in page
    assert "Nothing is left to label." in _label(pages, page, "neutral")
    assert decided(sample_of(url).labels[second]) == "neutral"
    assert first not in sample_of(url).labels


def test_a_post_that_changed_meanwhile_is_shown_again(pages: TestClient, url: SecretStr) -> None:
    page = pages.get(_START).text
    with transaction(url) as connection:
        connection.execute("UPDATE masto.toots_raw SET content_txt = content_txt || ' (edited)'")
    page = _label(pages, page, "positive")
    assert "(edited)" in page
    assert "ada: 12 left" in page
    with transaction(url) as connection:
        connection.execute("DELETE FROM masto.toots_raw")
    assert "No posts are drawn yet." in _label(pages, page, "positive")


def test_a_text_with_a_content_warning_is_folded(pages: TestClient, url: SecretStr) -> None:
    with transaction(url) as connection:
        connection.execute("UPDATE masto.toots_raw SET is_sensitive = true")
    page = pages.get(_START).text
    assert re.search(r"<details>\s*<summary>Content warning.*?text \d+.*?</details>", page, re.S)


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("coder=a+b", "coder &#39;a b&#39;: allowed: up to 40 of"),
        ("coder=ada&languages=en;de", "languages &#39;en;de&#39;: give language codes"),
    ],
)
def test_wrong_names_are_refused(pages: TestClient, query: str, problem: str) -> None:
    answer = pages.get(f"/posts/label?{query}")
    assert answer.status_code == 400
    assert problem in answer.text


@pytest.mark.parametrize(
    "wrong", [{"label": "great"}, {"id": "x"}, {"text_hash": "zz"}, {"coder": ""}]
)
def test_a_label_that_the_page_does_not_offer_is_refused(
    pages: TestClient, url: SecretStr, wrong: dict[str, str]
) -> None:
    fields = {**_fields(pages.get(_START).text), "label": "positive", **wrong}
    assert pages.post("/posts/label", data=fields).status_code == 400
    assert sample_of(url).labels == {}


def test_the_view_of_the_model_moves_with_an_evaluation(url: SecretStr) -> None:
    add_champion(url)
    with transaction(url) as connection:
        before = _read_state(connection).model
        assert _read_state(connection).model == before
        record_own_posts(connection, CHAMPION, {"evaluated_at": "2026-11-30T00:32:12+00:00"})
        assert _read_state(connection).model != before


def test_another_sites_page_stores_no_label(pages: TestClient, url: SecretStr) -> None:
    fields = {**_fields(pages.get(_START).text), "label": "positive"}
    answer = pages.post("/posts/label", data=fields, headers={"origin": "https://evil.example"})
    assert answer.status_code == 403
    assert sample_of(url).labels == {}
