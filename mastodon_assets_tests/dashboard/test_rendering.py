"""Views that fail, alone and for a while, and a poller that goes on."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from mastodon_assets.dashboard import rendering
from mastodon_assets.dashboard.database import Database, SlowQueryError
from mastodon_assets.dashboard.filters import Filters, Scope
from mastodon_assets.dashboard.formats import as_json
from mastodon_assets.dashboard.poller import DataState, Poller
from mastodon_assets.dashboard.rendering import Read, Renderer
from mastodon_assets.dashboard.views.base import Column, Content, Figure, Grid, View

_COLUMNS = (Column("count", "count"),)
_STATE = DataState(1, datetime.now(UTC), None, None, "", 0, "", None)


class _Database:
    """Calls what is to be read without a connection."""

    async def read(self, function: Callable[[Any], Any]) -> Any:
        return function(None)


def _view(name: str, read: Callable[[Any, Any], Content]) -> View:
    return View(name, name, "How many?", "a table", read, follows="posts")


def _count(_connection: object, _scope: object) -> Content:
    return Content(Grid(_COLUMNS, [[4711]]), figures=[Figure("counted", "4711")])


def _renderer(monkeypatch: pytest.MonkeyPatch, *views: View) -> Renderer:
    monkeypatch.setattr(rendering, "VIEWS", {view.name: view for view in views})
    database = cast("Database", _Database())
    return Renderer(database, Poller(database), None)


def _shown(renderer: Renderer) -> dict[str, str]:
    sections = asyncio.run(renderer.sections(Filters()))
    return {section.name: section.html for section in sections}


def test_a_mistake_in_one_view_leaves_the_numbers_at_the_top_and_the_other_views(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def divide(_connection: object, _scope: object) -> Content:
        raise ZeroDivisionError

    def draw(_width: int) -> str:
        raise IndexError

    undrawn = Content(Grid(_COLUMNS, [[1]]), draw=draw)
    shown = _shown(
        _renderer(
            monkeypatch,
            _view("unread", divide),
            _view("undrawn", lambda *_: undrawn),
            _view("fine", _count),
        )
    )
    assert "counted" in shown["figures"]
    assert "4,711" in shown["fine"]
    for name in ("unread", "undrawn"):
        assert "this view failed; the log of the dashboard says why" in shown[name]
        assert f"the view {name} failed" in caplog.text


def test_a_view_that_counts_whole_days_says_from_when_in_the_page_and_its_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read(_connection: object, scope: Scope) -> Content:
        return Content(Grid(_COLUMNS, [[1]]), notes=["n = 1."], start=scope.first_midnight)

    daily, hour = _view("daily", read), Filters(period="1h")
    renderer = _renderer(monkeypatch, daily)

    async def look() -> tuple[str, Read]:
        section = await renderer.section(daily, hour)
        return section.html, await renderer.content(daily, hour)

    html, found = asyncio.run(look())
    document = json.loads(as_json(daily, hour, found))
    assert found.scope.start is not None
    assert document["filters"]["from"] == f"{found.scope.start:%Y-%m-%d}T00:00:00Z"
    assert document["notes"][0] == "n = 1."
    assert document["notes"][1].startswith("Whole hours or days are counted, from ")
    assert document["notes"][1] in html


def test_a_view_that_took_too_long_is_tried_again_after_a_while_though_no_data_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers: list[Content | Exception] = [SlowQueryError("too long"), _count(None, None)]

    def read(_connection: object, _scope: object) -> Content:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    view = _view("slow", read)
    renderer = _renderer(monkeypatch, view)

    async def look_thrice() -> list[str]:
        looks = [await renderer.section(view, Filters()) for _ in range(2)]
        monkeypatch.setattr(rendering, "_SECONDS_FAILED", -1.0)
        looks.append(await renderer.section(view, Filters()))
        return [look.html for look in looks]

    first, soon_after, later = asyncio.run(look_thrice())
    assert "too long" in first
    assert "too long" in soon_after
    assert "4,711" in later


def test_the_poller_goes_on_after_an_error_that_nobody_foresaw() -> None:
    answers: list[DataState | Exception] = [_STATE, RuntimeError("cached plan"), _STATE]

    class Answering:
        async def read(self, _function: object) -> DataState:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

    async def check_thrice() -> list[str | None]:
        poller = Poller(cast("Database", Answering()))
        problems = []
        for _ in range(3):
            await poller.check()
            problems.append(poller.reached.problem)
        return problems

    assert asyncio.run(check_thrice()) == [None, "RuntimeError", None]
