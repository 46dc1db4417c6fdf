"""The simulated Mastodon server: routes, tokens, start and stop.

It listens on 127.0.0.1 only and has no default token. Its content is in `sources`; how clients
share the stream is in `streaming`.
"""

import asyncio
import secrets
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from mastodon_assets.errors import PlatformError, SettingsError
from mastodon_assets.simulator import instance
from mastodon_assets.simulator.accounts import LOCAL_DOMAIN
from mastodon_assets.simulator.faults import Refusal
from mastodon_assets.simulator.limits import RequestLimits
from mastodon_assets.simulator.recorded import RecordedSource, read_statuses
from mastodon_assets.simulator.sources import Source, SyntheticSource
from mastodon_assets.simulator.streaming import Broadcast, EventStreamResponse
from mastodon_assets.simulator.synthetic import LivePosts, history
from mastodon_assets.simulator.timeline import Entry, PageRequest

HOST = "127.0.0.1"
HEARTBEAT_SECONDS = 15.0
_DEFAULT_LIMIT, _MAX_LIMIT = 20, 40
_REQUESTS_PER_WINDOW, _WINDOW = 300, timedelta(minutes=5)
# Returns the error for a request for a path; None for the real answer.
Refuse = Callable[[str], Refusal | None]

_START_SECONDS, _STOP_SECONDS, _GRACE_SECONDS = 10, 10, 0.5


class SimulatorError(PlatformError):
    """Raised if the simulator cannot be started or stopped."""


@dataclass(frozen=True)
class SimulatorServer:
    """A running simulator: its address and the token that it requires."""

    base_url: str
    token: str


def create_app(
    source: Source,
    *,
    token: str,
    domain: str = LOCAL_DOMAIN,
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
    refuse: Refuse | None = None,
    limits: RequestLimits | None = None,
) -> Starlette:
    """Return the application. Streams and `verify_credentials` require `token`; others take none.

    Args:
        source: The content.
        token: The access token; a wrong one is answered by 401 everywhere.
        domain: The name of the server.
        heartbeat_seconds: Seconds between heartbeats of a stream.
        refuse: Returns the error for a path, or None for the real answer.
        limits: The rate limits; without them nobody is limited.
    """
    broadcast = Broadcast(source, heartbeat_seconds=heartbeat_seconds)
    api = _Api(source, broadcast, token, domain, refuse or _refuse_nothing, limits)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with broadcast.posting():
            yield

    app = Starlette(routes=api.routes(), lifespan=lifespan)
    app.state.broadcast = broadcast
    return app


def serve(app: Starlette, port: int) -> None:
    """Serve `app` on 127.0.0.1 until the process gets a signal to stop. Port 0 takes a free one.

    Raises:
        SimulatorError: The port cannot be used.
    """
    _serve(app, _listen(port))


def run(
    *,
    port: int,
    seed: int,
    toots: int,
    days: int,
    report: Callable[[SimulatorServer], None],
    from_file: Path | None = None,
    rate: float = 0,
    token: str | None = None,
    domain: str = LOCAL_DOMAIN,
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
) -> None:
    """Simulate a server until the process gets a signal to stop.

    Args:
        port: The port on 127.0.0.1; 0 takes a free one.
        seed: The same seed gives the same synthetic toots.
        toots: Number of synthetic toots in the history.
        days: Number of days of the history.
        report: Called once, when clients may connect.
        from_file: Recorded statuses to serve in place of synthetic toots.
        rate: New synthetic posts per second after the history.
        token: The access token; without one, a new one is generated.
        domain: The name of the server.
        heartbeat_seconds: Seconds between heartbeats of a stream.

    Raises:
        SettingsError: `rate` is given with `from_file`.
        SimulatorError: The port cannot be used.
        RecordingError: `from_file` cannot be read or has a line that is no status.
    """
    if from_file is None:
        source: Source = synthetic_source(
            toots=toots, days=days, seed=seed, rate=rate, domain=domain
        )
    elif rate:
        raise SettingsError("--rate is for synthetic toots; leave it out to replay a file")
    else:
        source = RecordedSource(read_statuses(from_file))
    token = token or new_token()
    app = create_app(source, token=token, domain=domain, heartbeat_seconds=heartbeat_seconds)
    listener = _listen(port)
    report(SimulatorServer(_base_url(listener), token))
    _serve(app, listener)


@contextmanager
def running(
    source: Source,
    *,
    port: int = 0,
    token: str | None = None,
    domain: str = LOCAL_DOMAIN,
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
    refuse: Refuse | None = None,
    limits: RequestLimits | None = None,
) -> Iterator[SimulatorServer]:
    """Run a simulator in a thread of this process; at the end it stops with all its streams.

    Args:
        source: The content.
        port: The port on 127.0.0.1; 0 takes a free one.
        token: The access token; without one, a new one is generated.
        domain: The name of the server.
        heartbeat_seconds: Seconds between heartbeats of a stream.
        refuse: Returns the error for a path, or None for the real answer.
        limits: The rate limits; without them nobody is limited.

    Raises:
        SimulatorError: The port cannot be used, or the server does not start or stop in time.
    """
    token = token or new_token()
    listener = _listen(port)
    app = create_app(
        source,
        token=token,
        domain=domain,
        heartbeat_seconds=heartbeat_seconds,
        refuse=refuse,
        limits=limits,
    )
    server = _Server(app)
    described = SimulatorServer(_base_url(listener), token)
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [listener]}, name="simulator", daemon=True
    )
    thread.start()
    try:
        _wait_until_started(server, thread)
        yield described
    finally:
        server.should_exit = True
        thread.join(_STOP_SECONDS)
        listener.close()
    if thread.is_alive():
        raise SimulatorError(f"the simulator at {described.base_url} did not stop; end the process")


def synthetic_source(
    *,
    toots: int,
    days: int,
    seed: int,
    rate: float = 0,
    now: datetime | None = None,
    domain: str = LOCAL_DOMAIN,
) -> SyntheticSource:
    """Return a synthetic history before `now` (default: the present), then `rate` posts per second.

    With the same seed, servers of different domains have different local and equal remote posts.
    """
    now = now or datetime.now(UTC)
    return SyntheticSource(
        history(toots=toots, days=days, seed=seed, now=now, domain=domain),
        live=LivePosts(seed, today=now, domain=domain),
        rate=rate,
    )


def new_token() -> str:
    """Return a random access token."""
    return secrets.token_urlsafe(32)


class _Server(uvicorn.Server):
    """Uvicorn, but a stop ends open streams; alone it would wait for their clients."""

    def __init__(self, app: Starlette) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="asyncio",
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
            )
        )
        self._broadcast: Broadcast = app.state.broadcast

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._broadcast.close()
        asyncio.get_running_loop().call_later(_GRACE_SECONDS, self._abort_connections)
        await super().shutdown(sockets)

    def _abort_connections(self) -> None:
        """Abort all connections; a stream whose client does not read cannot end by itself."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def _serve(app: Starlette, listener: socket.socket) -> None:
    with listener, suppress(KeyboardInterrupt):
        _Server(app).run(sockets=[listener])


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        raise SimulatorError(
            f"cannot listen on {HOST}:{port} ({error}); use another port"
        ) from error
    return listener


def _base_url(listener: socket.socket) -> str:
    return f"http://{HOST}:{listener.getsockname()[1]}"


def _wait_until_started(server: _Server, thread: threading.Thread) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise SimulatorError("the simulator did not start; see the log")
        time.sleep(0.005)


class _Api:
    """The endpoints. Paths, parameters and errors are those of Mastodon's API documentation."""

    def __init__(
        self,
        source: Source,
        broadcast: Broadcast,
        token: str,
        domain: str,
        refuse: Refuse,
        limits: RequestLimits | None,
    ) -> None:
        self._limits = limits
        self._domain = domain
        self._refuse = refuse
        self._source = source
        self._broadcast = broadcast
        self._token = token

    def routes(self) -> list[Route]:
        endpoints: dict[str, Callable[[Request], Any]] = {
            "/api/v1/instance": self._instance_v1,
            "/api/v2/instance": self._instance_v2,
            "/api/v1/streaming/health": self._health,
            "/api/v1/streaming/public": self._stream,
            "/api/v1/streaming/public/{kind:str}": self._stream,
            "/api/v1/streaming/hashtag": self._hashtag_stream,
            "/api/v1/streaming/hashtag/{kind:str}": self._hashtag_stream,
            "/api/v1/timelines/public": self._timeline,
            "/api/v1/timelines/tag/{tag:str}": self._timeline,
            "/api/v1/statuses": self._statuses,
            "/api/v1/statuses/{status_id:str}": self._status,
            "/api/v1/accounts/verify_credentials": self._verify_credentials,
            "/api/v1/blocks": self._empty_list,
            "/api/v1/mutes": self._empty_list,
            "/api/v1/domain_blocks": self._empty_list,
        }
        # Mastodon.py adds a slash to some of them; a redirect would cost a request.
        return [
            Route(path + end, self._refusable(endpoint))
            for path, endpoint in endpoints.items()
            for end in ("", "/")
        ]

    def _refusable(self, endpoint: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            refusal = self._refuse(request.url.path)
            if refusal is not None:
                return JSONResponse(
                    {"error": "Refused"}, status_code=refusal.status_code, headers=refusal.headers()
                )
            if self._limits is None:
                response: Response = await endpoint(request)
                return response
            is_allowed, headers = self._limits.count(f"{request.url.path}?{request.url.query}")
            limited = await endpoint(request) if is_allowed else _error(429, "Too many requests")
            limited.headers.update(headers)
            return limited

        return answer

    async def _instance_v1(self, request: Request) -> Response:
        return JSONResponse(instance.instance_v1(self._domain, _streaming_url(request)))

    async def _instance_v2(self, request: Request) -> Response:
        return JSONResponse(instance.instance_v2(self._domain, _streaming_url(request)))

    async def _health(self, _request: Request) -> Response:
        return PlainTextResponse("OK")

    async def _stream(self, request: Request) -> Response:
        kind = request.path_params.get("kind")
        if kind not in (None, "local", "remote"):
            return _error(400, "Unknown stream type")
        return self._open_stream(request, None if kind is None else kind == "local", None)

    async def _hashtag_stream(self, request: Request) -> Response:
        tag = request.query_params.get("tag")
        if not tag:
            return _error(400, "Missing tag name parameter")
        kind = request.path_params.get("kind")
        if kind not in (None, "local"):
            return _error(400, "Unknown stream type")
        return self._open_stream(request, None if kind is None else True, tag)

    def _open_stream(self, request: Request, is_local: bool | None, tag: str | None) -> Response:
        given = _bearer_token(request)
        if given is None:
            return _error(401, "Missing access token")
        if not self._is_valid(given):
            return _error(401, "Invalid access token")
        response = EventStreamResponse(self._broadcast.stream(is_local, tag))
        response.headers["Cache-Control"] = "private, no-store"
        response.headers["Access-Control-Allow-Origin"] = "*"
        response.headers["X-Request-Id"] = secrets.token_hex(16)
        return response

    async def _timeline(self, request: Request) -> Response:
        if self._has_wrong_token(request):
            return _error(401, "The access token is invalid")
        requested = _page_request(request)
        page = self._source.page(requested)
        return _json_array(
            [entry.body() for entry in page],
            _rate_limit_headers() | _links(request, requested, page),
        )

    async def _statuses(self, request: Request) -> Response:
        if self._has_wrong_token(request):
            return _error(401, "The access token is invalid")
        ids = dict.fromkeys(request.query_params.getlist("id[]"))
        found = (self._source.status(status_id) for status_id in ids)
        return _json_array([body for body in found if body is not None], _rate_limit_headers())

    async def _status(self, request: Request) -> Response:
        if self._has_wrong_token(request):
            return _error(401, "The access token is invalid")
        body = self._source.status(request.path_params["status_id"])
        if body is None:
            return _error(404, "Record not found")
        return Response(body, headers=_rate_limit_headers(), media_type="application/json")

    async def _verify_credentials(self, request: Request) -> Response:
        if not self._is_valid(_bearer_token(request)):
            return _error(401, "The access token is invalid")
        return JSONResponse(
            instance.credential_account(self._domain), headers=_rate_limit_headers()
        )

    async def _empty_list(self, request: Request) -> Response:
        """Answer that the token's owner blocks and mutes nobody."""
        if not self._is_valid(_bearer_token(request)):
            return _error(401, "The access token is invalid")
        return _json_array([], _rate_limit_headers())

    def _has_wrong_token(self, request: Request) -> bool:
        given = _bearer_token(request)
        return given is not None and not self._is_valid(given)

    def _is_valid(self, given: str | None) -> bool:
        return given is not None and secrets.compare_digest(given.encode(), self._token.encode())


def _refuse_nothing(_path: str) -> None:
    return None


def _bearer_token(request: Request) -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _streaming_url(request: Request) -> str:
    scheme = "wss" if request.url.scheme == "https" else "ws"
    return f"{scheme}://{request.url.netloc}"


def _page_request(request: Request) -> PageRequest:
    parameters = request.query_params
    limit = parameters.get("limit", "")
    local, remote = (
        parameters.get(name, "").lower() in ("1", "t", "true") for name in ("local", "remote")
    )
    return PageRequest(
        limit=min(max(int(limit), 1), _MAX_LIMIT) if limit.isdecimal() else _DEFAULT_LIMIT,
        max_id=parameters.get("max_id") or None,
        since_id=parameters.get("since_id") or None,
        min_id=parameters.get("min_id") or None,
        is_local=None if local == remote else local,
        tag=request.path_params.get("tag"),
    )


def _links(request: Request, requested: PageRequest, page: list[Entry]) -> dict[str, str]:
    """Return the Link header: `next` is the page of older entries, `prev` of newer ones."""
    if not page:
        return {}
    kept = {
        name: value
        for name, value in request.query_params.items()
        if name not in ("max_id", "since_id", "min_id", "limit")
    } | {"limit": str(requested.limit)}
    base = request.url.replace(query="")

    def address(name: str, status_id: str) -> str:
        return f"{base}?{urlencode(kept | {name: status_id})}"

    older, newer = address("max_id", page[-1].status_id), address("min_id", page[0].status_id)
    return {"Link": f'<{older}>; rel="next", <{newer}>; rel="prev"'}


def _rate_limit_headers() -> dict[str, str]:
    """Return the headers of a client's first request: without `limits`, nobody is limited."""
    reset = datetime.now(UTC) + _WINDOW
    return {
        "X-RateLimit-Limit": str(_REQUESTS_PER_WINDOW),
        "X-RateLimit-Remaining": str(_REQUESTS_PER_WINDOW - 1),
        "X-RateLimit-Reset": reset.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }


def _json_array(bodies: list[bytes], headers: dict[str, str]) -> Response:
    return Response(b"[" + b",".join(bodies) + b"]", headers=headers, media_type="application/json")


def _error(status_code: int, message: str) -> Response:
    return JSONResponse({"error": message}, status_code=status_code)
