"""The login: what is a session, and how slow it gets."""

import asyncio
import time

import pytest
from pydantic import SecretStr

from mastodon_assets.dashboard.sessions import SECONDS, Sessions, TooManyAttemptsError

_PASSWORD = "correct horse battery"


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that attempts waited; they do not really wait."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("mastodon_assets.dashboard.sessions.asyncio.sleep", sleep)
    return waited


def test_a_cookie_is_good_for_its_process_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = Sessions(SecretStr(_PASSWORD))
    cookie = asyncio.run(sessions.log_in(_PASSWORD))
    assert cookie is not None
    session = sessions.session(cookie)
    assert session is not None
    assert session.name == cookie.partition(".")[0]
    assert Sessions(SecretStr(_PASSWORD)).session(cookie) is None
    name, until, signature = cookie.split(".")
    for forged in (
        None,
        "",
        f"{name}.{int(until) + 1}.{signature}",
        f"other.{until}.{signature}",
        f"{name}.{until}.{signature[:-1]}é",
        f"{name}.²{until}.{signature}",
        f"{name}.{'9' * 50}.{signature}",
        "....",
    ):
        assert sessions.session(forged) is None
    monkeypatch.setattr("mastodon_assets.dashboard.sessions.time.time", lambda: int(until) + 1)
    assert sessions.session(cookie) is None
    monkeypatch.undo()
    sessions.end(session)
    assert sessions.session(cookie) is None


def test_ended_sessions_are_remembered_as_long_as_their_cookies_are_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sessions = Sessions(SecretStr(_PASSWORD))

    def end_one() -> str:
        cookie = asyncio.run(sessions.log_in(_PASSWORD))
        session = sessions.session(cookie)
        assert cookie is not None
        assert session is not None
        sessions.end(session)
        return cookie

    cookies = [end_one() for _ in range(3)]
    assert [sessions.session(cookie) for cookie in cookies] == [None] * 3
    assert len(sessions._ended) == 3
    later = time.time() + SECONDS + 1
    monkeypatch.setattr("mastodon_assets.dashboard.sessions.time.time", lambda: later)
    end_one()
    assert len(sessions._ended) == 1


def test_each_failure_makes_the_next_attempt_slower_and_success_ends_that(
    waits: list[float],
) -> None:
    sessions = Sessions(SecretStr(_PASSWORD))

    async def attempts() -> None:
        for wrong in ("", "correct", f"{_PASSWORD} ", "x" * 100, *["no"] * 8):
            assert await sessions.log_in(wrong) is None
        assert await sessions.log_in(_PASSWORD) is not None
        waits.append(-1)
        assert await sessions.log_in(_PASSWORD) is not None

    asyncio.run(attempts())
    assert waits[:4] == [0.5, 1, 2, 4]
    assert waits[-3:] == [30, 30, -1]


def test_attempts_wait_for_each_other_and_only_five_wait() -> None:
    sessions = Sessions(SecretStr(_PASSWORD))

    async def attempts() -> list[object]:
        await sessions.log_in("wrong")
        # The first of them waits half a second, the others for it; nobody waits for the end.
        tasks = [asyncio.create_task(sessions.log_in("wrong")) for _ in range(7)]
        await asyncio.sleep(0.05)
        done = [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return [task.exception() for task in done]

    refused = asyncio.run(attempts())
    assert [type(each) for each in refused] == [TooManyAttemptsError] * 2


def test_without_a_password_nobody_gets_in() -> None:
    sessions = Sessions(None)
    assert not sessions.is_possible
    assert asyncio.run(sessions.log_in("")) is None
    assert asyncio.run(sessions.log_in("None")) is None
