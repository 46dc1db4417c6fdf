"""The part behind the login: newest posts, each look logged."""

import logging
from datetime import UTC, datetime

from anyio import to_thread
from starlette.datastructures import URL
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from mastodon_assets.dashboard.access_log import AccessLog
from mastodon_assets.dashboard.database import Database
from mastodon_assets.dashboard.events import Viewers, event_stream
from mastodon_assets.dashboard.explanations import LONGEST_TEXT, Explanations, Words
from mastodon_assets.dashboard.filters import Filters, parse_filters, scope_at
from mastodon_assets.dashboard.forms import client_of, form_fields
from mastodon_assets.dashboard.poller import Poller
from mastodon_assets.dashboard.posts import SEARCHED, Post, read_posts
from mastodon_assets.dashboard.rendering import UNREACHABLE, Renderer, Section
from mastodon_assets.dashboard.sessions import (
    COOKIE,
    SECONDS,
    Session,
    Sessions,
    TooManyAttemptsError,
)
from mastodon_assets.errors import PlatformError, ServiceUnavailableError

logger = logging.getLogger(__name__)

_NAME = "newest-posts"


class Moderation:
    """The pages `/posts`, `/posts/login`, `/posts/logout` and the stream `/posts/events`."""

    def __init__(
        self,
        database: Database,
        poller: Poller,
        renderer: Renderer,
        viewers: Viewers,
        sessions: Sessions,
        access_log: AccessLog,
    ) -> None:
        self._database = database
        self._poller = poller
        self._renderer = renderer
        self._viewers = viewers
        self._sessions = sessions
        self._access_log = access_log
        self._explanations = Explanations()

    def routes(self) -> list[Route]:
        """Return the URLs of this part."""
        return [
            Route("/posts", self.page),
            Route("/posts/events", self.events),
            Route("/posts/login", self.log_in, methods=["POST"]),
            Route("/posts/logout", self.log_out, methods=["POST"]),
        ]

    async def page(self, request: Request) -> Response:
        """Serve the posts, or the login, or how to turn this part on."""
        filters = parse_filters(request.query_params)
        session = self._session(request)
        if session is None:
            return self._login_page(request.url.query, None, 200)
        number = self._poller.number
        section = await self._section(request, session, filters)
        return HTMLResponse(
            self._renderer.templates.get_template("posts.html").render(
                section=section.html,
                filters=filters,
                choices=await self._renderer.choices(),
                seen=f"{self._poller.process}.{number}",
                state=self._renderer.state(),
                longest_text=LONGEST_TEXT,
            )
        )

    async def events(self, request: Request) -> Response:
        """Serve the posts again with each change, as long as the session is open."""
        filters = parse_filters(request.query_params)

        async def changes(seen: int) -> list[Section] | None:
            session = self._session(request)
            if session is None:
                return None
            if self._poller.numbers["posts"] <= seen and self._poller.numbers["answers"] <= seen:
                return []
            return [await self._section(request, session, filters)]

        return event_stream(request, self._poller, self._viewers, changes, self._renderer.state)

    async def log_in(self, request: Request) -> Response:
        """Check the password; set the cookie and go to the posts."""
        form = await form_fields(request)
        query = URL(f"/posts?{form.get('query', '')}").query
        if not self._sessions.is_possible:
            return self._login_page(query, None, 403)
        try:
            cookie = await self._sessions.log_in(form.get("password", ""))
        except TooManyAttemptsError:
            return self._login_page(query, "Too many attempts at once; try again later.", 429)
        if cookie is None:
            self._access_log.write("login refused", client_of(request))
            logger.warning("a login to the posts was refused, from %s", client_of(request))
            return self._login_page(query, "That is not the password.", 403)
        self._access_log.write("login", client_of(request), session=cookie.partition(".")[0])
        response = RedirectResponse(f"/posts?{query}" if query else "/posts", status_code=303)
        response.set_cookie(
            COOKIE,
            cookie,
            max_age=SECONDS,
            path="/posts",
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response

    async def log_out(self, request: Request) -> Response:
        """End the session."""
        if session := self._session(request):
            self._sessions.end(session)
            self._access_log.write("logout", client_of(request), session=session.name)
        response = RedirectResponse("/posts", status_code=303)
        response.delete_cookie(COOKIE, path="/posts", httponly=True, samesite="strict")
        return response

    def _session(self, request: Request) -> Session | None:
        return self._sessions.session(request.cookies.get(COOKIE))

    def _login_page(self, query: str, problem: str | None, status: int) -> Response:
        template = self._renderer.templates.get_template("login.html")
        html = template.render(is_possible=self._sessions.is_possible, query=query, problem=problem)
        return HTMLResponse(html, status_code=status)

    async def _section(self, request: Request, session: Session, filters: Filters) -> Section:
        scope = scope_at(filters, datetime.now(UTC))
        posts: list[Post] = []
        words: list[Words] = []
        problem = None
        try:
            posts = await self._database.read(lambda connection: read_posts(connection, scope))
            words = await to_thread.run_sync(self._explanations.of, posts)
        except PlatformError as error:
            logger.warning("the posts could not be read: %s", error)
            problem = UNREACHABLE if isinstance(error, ServiceUnavailableError) else str(error)
        # Written before anything is shown: no look is missing.
        self._access_log.write(
            "look",
            client_of(request),
            session=session.name,
            filters=filters.query,
            posts=len(posts),
        )
        html = self._renderer.templates.get_template("newest_posts.html").render(
            posts=list(zip(posts, words, strict=True)),
            problem=problem,
            searched=SEARCHED,
            scope=scope,
        )
        return Section(_NAME, html)
