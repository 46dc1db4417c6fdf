"""Labelling in the browser, behind the login: one drawn post at a time.

What belongs here: the pages. A coder sees neither the model's label nor, unless they settle
disagreements, the labels of others. The rules are those of `annotate label`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from urllib.parse import urlencode

from anyio import to_thread
from psycopg import Connection
from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from mastodon_assets.dashboard.access_log import AccessLog
from mastodon_assets.dashboard.database import Database
from mastodon_assets.dashboard.forms import client_of, form_fields
from mastodon_assets.dashboard.rendering import Renderer
from mastodon_assets.dashboard.sessions import COOKIE, Session, Sessions
from mastodon_assets.errors import SettingsError
from mastodon_assets.sentiment.annotation.labels import (
    LABELS,
    UNSURE,
    ShownPost,
    coder_name,
    given,
    language_codes,
    read_post,
    read_sample,
    store_label,
    waiting_for,
)

_URL = "/posts/label"


@dataclass(frozen=True)
class Task:
    """What a coder does, from the parameters of the page.

    Attributes:
        coder: Name of the coder.
        languages: First parts of languages, separated by commas; empty for all.
        settles: Whether to settle disagreements.
        post: A post to label again; None for the next that waits.
        back: The post that was labelled last.
    """

    coder: str
    languages: str = ""
    settles: bool = False
    post: int | None = None
    back: int | None = None

    @property
    def url(self) -> str:
        """The page with these parameters."""
        parameters = {
            "coder": self.coder,
            "languages": self.languages,
            "settle": "1" if self.settles else "",
            "post": self.post,
            "back": self.back,
        }
        return f"{_URL}?{urlencode({k: v for k, v in parameters.items() if v not in ('', None)})}"

    @property
    def back_url(self) -> str | None:
        """The page on which the last label can be changed; None before the first."""
        return None if self.back is None else replace(self, post=self.back, back=None).url


@dataclass(frozen=True)
class _Next:
    """The post to show, what others said of it, how many wait, and whether any is drawn."""

    post: ShownPost | None
    others: Sequence[str]
    waiting: int
    is_drawn: bool


class Labelling:
    """The page `/posts/label`."""

    def __init__(
        self,
        database: Database,
        postgres_url: SecretStr,
        renderer: Renderer,
        sessions: Sessions,
        access_log: AccessLog,
    ) -> None:
        self._database = database
        self._postgres_url = postgres_url
        self._renderer = renderer
        self._sessions = sessions
        self._access_log = access_log

    def routes(self) -> list[Route]:
        """Return the URLs of this part."""
        return [Route(_URL, self.page), Route(_URL, self.store, methods=["POST"])]

    async def page(self, request: Request) -> Response:
        """Serve the next post, or the form that asks for the coder's name."""
        session = self._session(request)
        if session is None:
            return RedirectResponse("/posts", status_code=303)
        if "coder" not in request.query_params:
            return self._render(200)
        try:
            task = _task(request.query_params)
        except SettingsError as error:
            return self._render(400, problem=str(error).removeprefix("--"))
        found = await self._database.read(partial(_find_next, task=task))
        # Written before anything is shown: no look is missing.
        self._access_log.write(
            "label",
            client_of(request),
            session=session.name,
            coder=task.coder,
            posts=int(found.post is not None),
        )
        return self._render(200, task=task, found=found)

    async def store(self, request: Request) -> Response:
        """Store a label and go to the next post."""
        if self._session(request) is None:
            return RedirectResponse("/posts", status_code=303)
        form = await form_fields(request)
        try:
            task, label = _task(form), form["label"]
            id_, text_hash = int(form["id"]), bytes.fromhex(form["text_hash"])
        except (SettingsError, KeyError, ValueError):
            return self._render(400, problem="that was no label of this page")
        if label not in (*LABELS, UNSURE):
            return self._render(400, problem="that was no label of this page")
        is_stored = await to_thread.run_sync(
            partial(
                store_label,
                *(self._postgres_url, id_, text_hash, task.coder, label),
                settles=task.settles,
            )
        )
        # A post that was edited is shown again.
        following = replace(task, post=None, back=id_ if is_stored else None)
        return RedirectResponse(following.url, status_code=303)

    def _session(self, request: Request) -> Session | None:
        return self._sessions.session(request.cookies.get(COOKIE))

    def _render(
        self,
        status: int,
        *,
        task: Task | None = None,
        found: _Next | None = None,
        problem: str | None = None,
    ) -> Response:
        template = self._renderer.templates.get_template("label.html")
        return HTMLResponse(
            template.render(task=task, next=found, problem=problem), status_code=status
        )


def _task(values: Mapping[str, str]) -> Task:
    """Return the task of the parameters.

    Raises:
        SettingsError: They name no coder, or no languages.
    """
    languages = values.get("languages", "").strip()
    language_codes(languages)
    post = values.get("post", "")
    back = values.get("back", "")
    return Task(
        coder_name(values.get("coder", "")),
        languages,
        values.get("settle") == "1",
        int(post) if _is_number(post) else None,
        int(back) if _is_number(back) else None,
    )


def _is_number(text: str) -> bool:
    return text.removeprefix("-").isdecimal() and len(text) <= 20


def _find_next(connection: Connection[Any], task: Task) -> _Next:
    sample = read_sample(connection)
    queue = waiting_for(
        sample, task.coder, languages=language_codes(task.languages), settles=task.settles
    )
    waiting = len(queue)
    if task.post is not None and any(post.id == task.post for post in sample.posts):
        queue.insert(0, task.post)
    post = read_post(connection, queue[0]) if queue else None
    others = given(sample.labels.get(post.id, ())) if post and task.settles else []
    return _Next(post, sorted(each.label for each in others), waiting, bool(sample.posts))
