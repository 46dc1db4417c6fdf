"""The application: URLs, headers, errors.

`/` is the page; `/views/NAME.csv`, `.json`, `.svg` and `.png` are the files of a view; `/events` is
the stream of changes; `/posts` is the part behind the login, with labelling in `/posts/label`;
`/metrics` is for Prometheus.
"""

import ipaddress
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from anyio import to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from mastodon_assets.config.settings import Settings
from mastodon_assets.dashboard import formats
from mastodon_assets.dashboard.access_log import AccessLog
from mastodon_assets.dashboard.database import Database, moderator_url, reader_url
from mastodon_assets.dashboard.events import Viewers, event_stream
from mastodon_assets.dashboard.filters import FilterError, parse_filters
from mastodon_assets.dashboard.labelling import Labelling
from mastodon_assets.dashboard.moderation import Moderation
from mastodon_assets.dashboard.poller import Poller
from mastodon_assets.dashboard.rendering import STATIC, UNREACHABLE, Renderer, Section
from mastodon_assets.dashboard.sessions import Sessions
from mastodon_assets.dashboard.views.base import View
from mastodon_assets.dashboard.views.registry import VIEWS
from mastodon_assets.errors import PlatformError, ServiceUnavailableError
from mastodon_assets.web_guard import App, Receive, Scope, Send, guarded

logger = logging.getLogger(__name__)

# Nothing but our own files, no inline script or style, no frame around the page.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)
# A proxy on this machine sends one of these: whoever asks is somewhere else.
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
# Returns numbers for Prometheus.
Metrics = Callable[[], bytes]
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_STATIC_AGE = b"public, max-age=31536000, immutable"
_MEDIA_TYPES = {
    "csv": "text/csv; charset=utf-8",
    "json": "application/json",
    "svg": "image/svg+xml",
    "png": "image/png",
}


class _HeadersMiddleware:
    """Adds the security headers; only files with a version in their URL are kept by browsers."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve with the headers, as ASGI asks."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_file = scope["path"].startswith("/static/") and b"v=" in scope["query_string"]

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = [each for each in message["headers"] if each[0] != b"cache-control"]
                kept = is_file and message["status"] == 200
                headers.append((b"cache-control", _STATIC_AGE if kept else b"no-store"))
                message = {**message, "headers": [*headers, *_HEADERS]}
            await send(message)

        await self._app(scope, receive, send_with_headers)


class Dashboard:
    """The dashboard of one process: its connections, its poller and its caches."""

    def __init__(self, settings: Settings, metrics: Metrics | None = None) -> None:
        """Create the parts; `metrics` returns what `/metrics` serves, None serves nothing."""
        self._metrics = metrics
        self._hosts = settings.ui_hosts.split(",")
        self._database = Database(reader_url(settings))
        posts_url = moderator_url(settings)
        self._posts_database = Database(posts_url)
        self.poller = Poller(self._database)
        self.renderer = Renderer(self._database, self.poller, settings.dagster_url)
        self.viewers = Viewers()
        self._access_log = AccessLog(settings.mastodon_assets_home)
        sessions = Sessions(settings.dashboard_password)
        self.moderation = Moderation(
            self._posts_database,
            self.poller,
            self.renderer,
            self.viewers,
            sessions,
            self._access_log,
        )
        self.labelling = Labelling(
            self._posts_database, posts_url, self.renderer, sessions, self._access_log
        )

    def application(self) -> App:
        """Return the application, behind the check of Host and Origin."""
        on_error: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
            HTTPException: self.on_error,
            PlatformError: self.on_error,
        }
        app = Starlette(
            routes=[
                Route("/", self.page),
                Route("/events", self.events),
                Route("/views/{name}.{extension}", self.view_file),
                Route("/health", self.health),
                Route("/metrics", self.metrics),
                *self.moderation.routes(),
                *self.labelling.routes(),
                Mount("/static", StaticFiles(directory=STATIC)),
            ],
            middleware=[
                Middleware(_HeadersMiddleware),
                Middleware(GZipMiddleware, minimum_size=1000, compresslevel=5),
            ],
            exception_handlers=on_error,
            lifespan=self._lifespan,
        )
        return guarded(app, self._hosts)

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        await self.poller.start()
        try:
            yield
        finally:
            await self.poller.stop()
            self._database.close()
            self._posts_database.close()
            self._access_log.close()

    def close(self) -> None:
        """Let all streams end."""
        self.poller.close()

    async def page(self, request: Request) -> Response:
        """Serve the page."""
        return HTMLResponse(await self.renderer.page(parse_filters(request.query_params)))

    async def events(self, request: Request) -> Response:
        """Serve the changes of the page."""
        filters = parse_filters(request.query_params)

        async def changes(seen: int) -> list[Section]:
            moved = [v for v in VIEWS.values() if self.poller.numbers[v.follows] > seen]
            sections = [await self.renderer.section(view, filters) for view in moved]
            return [await self.renderer.figures(filters), *sections] if moved else []

        return event_stream(request, self.poller, self.viewers, changes, self.renderer.state)

    async def view_file(self, request: Request) -> Response:
        """Serve a view as CSV, JSON, SVG or PNG."""
        view, extension = _view(request), request.path_params["extension"]
        if extension not in _MEDIA_TYPES:
            raise HTTPException(404, f"a view has: {', '.join(_MEDIA_TYPES)}")
        filters = parse_filters(request.query_params)
        read = await self.renderer.content(view, filters)
        content: bytes | str | None
        if extension == "csv":
            content = formats.as_csv(read)
        elif extension == "json":
            content = formats.as_json(view, filters, read)
        else:
            content = formats.as_svg(view, filters, read)
            if content is None:
                raise HTTPException(404, read.content.empty or f"{view.name} has no chart")
            if extension == "png":
                content = await to_thread.run_sync(formats.as_png, content)
        name = f'inline; filename="{view.name}.{extension}"'
        return Response(
            content, media_type=_MEDIA_TYPES[extension], headers={"content-disposition": name}
        )

    async def health(self, _request: Request) -> Response:
        """Say whether the database can be read: 200 or 503."""
        is_down = self.poller.reached.problem is not None
        return JSONResponse({"problem": UNREACHABLE} if is_down else {}, 503 if is_down else 200)

    async def metrics(self, request: Request) -> Response:
        """Serve the numbers of the platform, to programs on this machine only."""
        if self._metrics is None or not _is_from_here(request):
            raise HTTPException(404)
        content = await to_thread.run_sync(self._metrics)
        return Response(content, headers={"content-type": _METRICS_TYPE})

    async def on_error(self, request: Request, error: Exception) -> Response:
        """Say what is wrong, on a page or in a line."""
        if isinstance(error, HTTPException):
            status, text = error.status_code, error.detail
            if text == HTTPStatus.NOT_FOUND.phrase:
                text = "There is no such page."
        else:
            status, text = (400 if isinstance(error, FilterError) else 503), str(error)
        if isinstance(error, ServiceUnavailableError):
            logger.warning("%s could not be served: %s", request.url.path, error)
            text = UNREACHABLE
        if "text/html" not in request.headers.get("accept", ""):
            return PlainTextResponse(text, status_code=status)
        template = self.renderer.templates.get_template("error.html")
        return HTMLResponse(template.render(status=status, text=text), status_code=status)


def _is_from_here(request: Request) -> bool:
    if any(name in request.headers for name in _FORWARDED):
        return False
    try:
        return request.client is not None and ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False


def _view(request: Request) -> View:
    view = VIEWS.get(request.path_params["name"])
    if view is None:
        raise HTTPException(404, f"there is no such view; there are: {', '.join(VIEWS)}")
    return view


def build_application(settings: Settings, metrics: Metrics | None = None) -> App:
    """Return the application, behind the check of Host and Origin.

    Args:
        settings: The settings.
        metrics: Returns what `/metrics` serves; None serves nothing.

    Raises:
        SettingsError: No database is known.
    """
    return Dashboard(settings, metrics).application()
