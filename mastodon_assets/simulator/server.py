"""The simulated Mastodon server: routes, tokens, start and stop.

It listens on 127.0.0.1 only and has no default token. Its content is in `sources`; how clients
share the stream is in `streaming`, and how other software than Mastodon answers in `personalities`.
"""

import asyncio
import json
import logging
import secrets
import socket
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from mastodon_assets.errors import PlatformError, SettingsError
from mastodon_assets.simulator import instance
from mastodon_assets.simulator.accounts import LOCAL_DOMAIN
from mastodon_assets.simulator.faults import Refusal, ServerFaults
from mastodon_assets.simulator.limits import RequestLimits
from mastodon_assets.simulator.personalities import MASTODON_4_5, Access, Ids, Personality, Reply
from mastodon_assets.simulator.recorded import RecordedSource, read_statuses
from mastodon_assets.simulator.socket_session import SocketSession
from mastodon_assets.simulator.sources import Source, SyntheticSource
from mastodon_assets.simulator.sse import json_text, utf8
from mastodon_assets.simulator.streaming import (
    Broadcast,
    EventStreamResponse,
    events_of,
    two_chunks,
)
from mastodon_assets.simulator.synthetic import LivePosts, history
from mastodon_assets.simulator.timeline import PageRequest

HOST = "127.0.0.1"
HEARTBEAT_SECONDS = 15.0
# Of sockets, by Mastodon and GoToSocial.
_PING_SECONDS = 30.0
_STREAMS = "/api/v1/streaming"
_DEFAULT_LIMIT = 20
_MOVED = 301
# Posts that are read at a time to find an account.
_ACCOUNT_PAGE = 40
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
    personality: Personality = MASTODON_4_5,
    faults: ServerFaults | None = None,
) -> Starlette:
    """Return the application. Streams and `verify_credentials` require `token`; others take none.

    Args:
        source: The content.
        token: The access token; a wrong one is answered by 401 everywhere.
        domain: The name of the server.
        heartbeat_seconds: Seconds between heartbeats of a stream.
        refuse: Returns the error for a path, or None for the real answer.
        limits: The rate limits; without them nobody is limited.
        personality: The software that it answers like.
        faults: Faults of the whole server, which the caller may switch on and off.
    """
    broadcast = Broadcast(
        source,
        heartbeat_seconds=heartbeat_seconds,
        heartbeat=personality.heartbeat,
        has_stream=personality.stream != "none",
    )
    faults = faults or ServerFaults()
    faults.end_streams = broadcast.end_streams
    api = _Api(
        source, broadcast, token, domain, refuse or _refuse_nothing, limits, personality, faults
    )

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
    personality: Personality = MASTODON_4_5,
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
        personality: The software that it answers like.

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
    app = create_app(
        source,
        token=token,
        domain=domain,
        heartbeat_seconds=heartbeat_seconds,
        personality=personality,
    )
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
    personality: Personality = MASTODON_4_5,
    faults: ServerFaults | None = None,
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
        personality: The software that it answers like.
        faults: Faults of the whole server, which the caller may switch on and off.

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
        personality=personality,
        faults=faults,
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
    """Uvicorn, but a stop tears open streams; alone it would wait for their clients.

    Mastodon's streaming server sends no last chunk then, and GoToSocial no closing frame.
    """

    def __init__(self, app: Starlette) -> None:
        logging.getLogger("uvicorn.error").addFilter(_is_no_denial)
        super().__init__(
            uvicorn.Config(
                app,
                loop="asyncio",
                ws="websockets-sansio",
                ws_ping_interval=_PING_SECONDS,
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
            )
        )
        self._broadcast: Broadcast = app.state.broadcast

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for connection in list(self.server_state.connections):
            if _is_stream(connection):
                connection.transport.abort()
        self._broadcast.close()
        asyncio.get_running_loop().call_later(_GRACE_SECONDS, self._abort_connections)
        await super().shutdown(sockets)

    def _abort_connections(self) -> None:
        """Abort all connections; a stream whose client does not read cannot end by itself."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def _is_stream(connection: Any) -> bool:
    scope = getattr(connection, "scope", None) or {}
    return str(scope.get("path", "")).startswith(_STREAMS)


def _is_no_denial(record: logging.LogRecord) -> bool:
    """Leave out what uvicorn logs as an error after each socket that is refused."""
    return "without completing handshake" not in record.getMessage()


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
        personality: Personality,
        faults: ServerFaults,
    ) -> None:
        self._limits = limits
        self._personality = personality
        self._ids = Ids(personality.id_form)
        self._faults = faults
        self._domain = domain
        self._refuse = refuse
        self._source = source
        self._broadcast = broadcast
        self._token = token

    def routes(self) -> list[BaseRoute]:
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
            "/api/v1/accounts/{account_id:str}": self._account,
            "/api/v1/blocks": self._empty_list,
            "/api/v1/mutes": self._empty_list,
            "/api/v1/domain_blocks": self._empty_list,
            "/.well-known/nodeinfo": self._nodeinfo_links,
            self._personality.nodeinfo_path.rstrip("/"): self._nodeinfo,
        }
        if self._personality.is_mastodon:
            # Anything else is no stream, whatever the token.
            endpoints["/api/v1/streaming{rest:path}"] = self._unknown_stream
        # Mastodon.py adds a slash to some of them; a redirect would cost a request.
        routes: list[BaseRoute] = [
            Route(path + end, self._refusable(endpoint))
            for path, endpoint in endpoints.items()
            for end in ("", "/")
            if not (end and path.startswith("/api/v1/streaming/public"))
        ]
        if self._personality.is_mastodon:
            # Before the route that answers requests of no stream.
            routes.insert(0, WebSocketRoute("/api/v1/streaming", self._mastodon_socket))
            routes.insert(0, WebSocketRoute("/api/v1/streaming/", self._mastodon_socket))
        if self._personality.stream == "socket":
            for end in ("", "/"):
                routes.append(WebSocketRoute(f"/api/v1/streaming{end}", self._socket))
                routes.append(Route(f"/api/v1/streaming{end}", self._refusable(self._no_socket)))
        if not self._personality.is_mastodon:
            routes.append(WebSocketRoute("/{rest:path}", self._no_such_socket))
            routes.append(Route("/{rest:path}", self._refusable(self._not_found)))
        return routes

    def _refusable(self, endpoint: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            refusal = self._refuse(request.url.path)
            if refusal is not None:
                return JSONResponse(
                    {"error": "Refused"}, status_code=refusal.status_code, headers=refusal.headers()
                )
            reply = self._personality.refused(
                request.url.path,
                by_ids="id[]" in request.query_params,
                access=self._access_of(request),
                agent=request.headers.get("User-Agent", ""),
            )
            if reply is not None:
                return self._replied(reply, request)
            if self._limits is None:
                response: Response = await endpoint(request)
                response.headers.update(self._personality.headers)
                return response
            is_allowed, headers = self._limits.count(f"{request.url.path}?{request.url.query}")
            limited = await endpoint(request) if is_allowed else self._limited()
            limited.headers.update({**self._personality.headers, **headers})
            return limited

        return answer

    async def _instance_v1(self, request: Request) -> Response:
        document = instance.instance_v1(self._domain, self._streaming_url(request))
        return JSONResponse(self._personality.instance(document, 1))

    async def _instance_v2(self, request: Request) -> Response:
        document = instance.instance_v2(self._domain, self._streaming_url(request))
        return JSONResponse(self._personality.instance(document, 2))

    async def _nodeinfo_links(self, _request: Request) -> Response:
        path = self._personality.nodeinfo_path
        href, schema = f"https://{self._domain}{path}", "nodeinfo.diaspora.software/ns/schema/2.0"
        return JSONResponse({"links": [{"rel": f"http://{schema}", "href": href}]})

    async def _nodeinfo(self, _request: Request) -> Response:
        name, version = self._personality.software or ("", "")
        return JSONResponse(instance.nodeinfo(name, version))

    async def _not_found(self, request: Request) -> Response:
        return self._replied(self._personality.replies["not found"], request)

    async def _no_socket(self, request: Request) -> Response:
        return self._replied(self._personality.replies["no socket"], request)

    async def _unknown_stream(self, _request: Request) -> Response:
        return _stream_error(400, "Unknown channel requested")

    async def _health(self, _request: Request) -> Response:
        return PlainTextResponse("OK")

    async def _stream(self, request: Request) -> Response:
        kind = request.path_params.get("kind")
        if kind not in (None, "local", "remote"):
            return _stream_error(400, "Unknown channel requested")
        return self._open_stream(request, None if kind is None else kind == "local", None)

    async def _hashtag_stream(self, request: Request) -> Response:
        tag = request.query_params.get("tag")
        kind = request.path_params.get("kind")
        if kind not in (None, "local"):
            return _stream_error(400, "Unknown channel requested")
        if not tag:
            return _stream_error(400, "Missing tag name parameter")
        return self._open_stream(request, None if kind is None else True, tag)

    def _open_stream(self, request: Request, is_local: bool | None, tag: str | None) -> Response:
        given = _stream_token(request)
        if not given:
            return _stream_error(401, "Missing access token")
        if not self._is_valid(given):
            return _stream_error(401, "Invalid access token")
        stream = self._broadcast.stream(is_local, tag)
        if self._personality.splits_events:
            stream = two_chunks(stream)
        response = EventStreamResponse(stream)
        response.headers.update({**_stream_headers(), "Cache-Control": "private, no-store"})
        return response

    async def _socket(self, socket: WebSocket) -> None:
        """Send frames as GoToSocial does; the token is not looked at again."""
        given = _stream_token(socket)
        if not socket.headers.get("User-Agent"):
            await self._deny(socket, "no user agent")
        elif not given or not self._is_valid(given):
            await self._deny(socket, "wrong token")
        else:
            await socket.accept()
            name = socket.query_params.get("stream", "")
            with suppress(WebSocketDisconnect):
                await self._send_frames(socket, name)

    async def _mastodon_socket(self, socket: WebSocket) -> None:
        """Serve a socket whose token is in the header, the query or the subprotocol."""
        protocol = socket.headers.get("Sec-WebSocket-Protocol")
        given = _stream_token(socket) or protocol
        if not given or not self._is_valid(given):
            what = "Invalid" if given else "Missing"
            await socket.send_denial_response(_stream_error(401, f"{what} access token"))
            return
        await socket.accept(subprotocol=protocol)
        parameters = socket.query_params
        session = SocketSession(socket, self._broadcast.stream)
        await session.run(parameters.get("stream"), parameters.get("tag"))

    async def _no_such_socket(self, socket: WebSocket) -> None:
        await self._deny(socket, "not found")

    async def _deny(self, socket: WebSocket, situation: str) -> None:
        reply = self._personality.replies[situation]
        await socket.send_denial_response(_response(reply))

    async def _send_frames(self, socket: WebSocket, name: str) -> None:
        if name not in ("public", "public:local"):
            # Other streams open too, and stay silent.
            await socket.receive()
            return
        is_local = True if name == "public:local" else None
        left = asyncio.create_task(_until_left(socket))
        async with aclosing(self._broadcast.stream(is_local, None)) as chunks:
            async for kind, data in events_of(chunks):
                if left.done():
                    return
                payload = data if kind == "delete" else self._translated(data.encode()).decode()
                if kind == "delete":
                    payload = self._ids.own(data, None)
                frame = {"stream": [name], "event": kind, "payload": payload}
                await socket.send_text(json_text(frame))

    async def _timeline(self, request: Request) -> Response:
        if self._has_wrong_token(request):
            return _error(401, "The access token is invalid")
        requested = self._page_request(request)
        if isinstance(requested, Reply):
            return self._replied(requested, request)
        page = [] if requested is None or self._faults.is_gone else self._source.page(requested)
        bodies = [self._translated(entry.body()) for entry in page]
        headers = self._rate_limit_headers()
        if page and requested is not None and self._personality.has_links:
            newest, oldest = (
                self._ids.own(page[place].status_id, None) for place in (0, len(page) - 1)
            )
            headers |= _links(request, requested, newest, oldest)
        return _json_array(bodies, headers)

    async def _statuses(self, request: Request) -> Response:
        if self._has_wrong_token(request):
            return _error(401, "The access token is invalid")
        ids = dict.fromkeys(request.query_params.getlist("id[]"))
        found = (None if self._faults.is_gone else self._source.status(each) for each in ids)
        return _json_array([body for body in found if body is not None], _rate_limit_headers())

    async def _status(self, request: Request) -> Response:
        if self._has_wrong_token(request):
            return _error(401, "The access token is invalid")
        status_id = self._ids.given(request.path_params["status_id"])
        is_gone = status_id is None or self._faults.is_gone
        body = None if is_gone or status_id is None else self._source.status(status_id)
        if body is None:
            return self._gone(request)
        headers = self._rate_limit_headers()
        return Response(self._translated(body), headers=headers, media_type="application/json")

    async def _account(self, request: Request) -> Response:
        """Answer an account that has listed posts; others are not known."""
        if self._has_wrong_token(request):
            return _error(401, "The access token is invalid")
        account_id, max_id = request.path_params["account_id"], None
        while not self._faults.is_gone:
            page = self._source.page(PageRequest(_ACCOUNT_PAGE, max_id=max_id))
            for entry in page:
                account = _account_of(self._translated(entry.body()))
                if account.get("id") == account_id:
                    return JSONResponse(account, headers=self._rate_limit_headers())
            if not page:
                break
            max_id = page[-1].status_id
        return self._gone(request)

    def _gone(self, request: Request) -> Response:
        gone = self._personality.replies.get("gone")
        return self._replied(gone, request) if gone else _error(404, "Record not found")

    async def _verify_credentials(self, request: Request) -> Response:
        if not self._is_valid(_bearer_token(request)):
            reply = self._personality.replies.get("wrong account")
            wrong = _error(401, "The access token is invalid")
            return self._replied(reply, request) if reply else wrong
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
        is_wrong = given is not None and not self._is_valid(given)
        return is_wrong and not self._personality.ignores_wrong_tokens

    def _is_valid(self, given: str | None) -> bool:
        is_equal = given is not None and secrets.compare_digest(
            given.encode(), self._token.encode()
        )
        return is_equal and not self._faults.is_revoked

    def _access_of(self, request: Request) -> Access:
        given = _bearer_token(request) or request.query_params.get("access_token")
        return "none" if not given else "valid" if self._is_valid(given) else "wrong"

    def _replied(self, reply: Reply, request: Request) -> Response:
        response = _response(reply)
        if reply.status_code == _MOVED:
            response.headers["Location"] = request.url.path.rstrip("/")
        if not reply.is_bare:
            response.headers.update(self._personality.headers)
        return response

    def _limited(self) -> Response:
        reply = self._personality.replies.get("limited")
        return _response(reply) if reply else _error(429, "Too many requests")

    def _rate_limit_headers(self) -> dict[str, str]:
        return _rate_limit_headers() if self._personality.is_mastodon else {}

    def _streaming_url(self, request: Request) -> str:
        if self._personality.is_mastodon:
            return _streaming_url(request)
        # These name their host, by TLS, even if they speak plain HTTP or have no stream at all.
        return f"wss://{request.url.hostname}"

    def _translated(self, body: bytes) -> bytes:
        """Return a status as the software writes it."""
        if self._personality.is_mastodon:
            return body
        try:
            document = json.loads(body)
            status = self._personality.status(document, self._ids, self._domain)
        except (ValueError, KeyError, TypeError, AttributeError):
            # A recorded or damaged payload.
            return body
        return utf8(json_text(status))

    def _page_request(self, request: Request) -> PageRequest | Reply | None:
        """Return what is requested; None for a page that is empty because of an unknown id."""
        requested = replace(
            _page_request(request, self._personality.largest_page),
            has_replies=self._personality.lists_replies,
        )
        for name in ("max_id", "since_id", "min_id"):
            status_id = getattr(requested, name)
            if status_id is None:
                continue
            known = self._ids.given(status_id)
            if known is None:
                return self._personality.replies.get("odd id")
            requested = replace(requested, **{name: known})  # type: ignore[arg-type]
        if any(kind in request.query_params for kind in self._personality.ignores):
            return replace(requested, is_local=None)
        return requested


def _account_of(body: bytes) -> Mapping[str, Any]:
    """Return the account of a status as JSON; an empty one if there is none."""
    try:
        account = json.loads(body)["account"]
    except (ValueError, KeyError, TypeError):
        # A recorded or damaged payload.
        return {}
    return account if isinstance(account, Mapping) else {}


def _refuse_nothing(_path: str) -> None:
    return None


def _bearer_token(request: Request) -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _stream_token(request: Request | WebSocket) -> str | None:
    """Return the token as the streaming server finds it: in the header or in the query."""
    header = request.headers.get("Authorization")
    return header.removeprefix("Bearer ") if header else request.query_params.get("access_token")


async def _until_left(socket: WebSocket) -> None:
    """Return when the client has closed the socket."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass


def _stream_headers() -> dict[str, str]:
    return {
        "X-Powered-By": "Express",
        "X-Request-Id": str(uuid.uuid4()),
        "Access-Control-Allow-Origin": "*",
    }


def _stream_error(status_code: int, message: str) -> Response:
    response = _error(status_code, message)
    response.headers.update(_stream_headers())
    return response


def _response(reply: Reply) -> Response:
    body = reply.body if isinstance(reply.body, str) else json_text(reply.body)
    headers = {"Content-Type": reply.content_type}
    return Response(body, status_code=reply.status_code, headers=headers)


def _streaming_url(request: Request) -> str:
    scheme = "wss" if request.url.scheme == "https" else "ws"
    return f"{scheme}://{request.url.netloc}"


def _page_request(request: Request, largest: int) -> PageRequest:
    parameters = request.query_params
    limit = parameters.get("limit", "")
    local, remote = (
        parameters.get(name, "").lower() in ("1", "t", "true") for name in ("local", "remote")
    )
    return PageRequest(
        limit=min(max(int(limit), 1), largest) if limit.isdecimal() else _DEFAULT_LIMIT,
        max_id=parameters.get("max_id") or None,
        since_id=parameters.get("since_id") or None,
        min_id=parameters.get("min_id") or None,
        is_local=None if local == remote else local,
        tag=request.path_params.get("tag"),
    )


def _links(request: Request, requested: PageRequest, newest: str, oldest: str) -> dict[str, str]:
    """Return the Link header: `next` is the page of older entries, `prev` of newer ones."""
    kept = {
        name: value
        for name, value in request.query_params.items()
        if name not in ("max_id", "since_id", "min_id", "limit")
    } | {"limit": str(requested.limit)}
    base = request.url.replace(query="")

    def address(name: str, status_id: str) -> str:
        return f"{base}?{urlencode(kept | {name: status_id})}"

    older, newer = address("max_id", oldest), address("min_id", newest)
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
