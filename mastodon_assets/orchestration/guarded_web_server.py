"""Dagster's web server behind a check of Host and Origin: `python -m …guarded_web_server`.

Dagster serves every page that a browser of this machine has open: a foreign page could launch runs
by it. What belongs here: the check. Options are those of `dagster-webserver`.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from importlib import import_module
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_POLICY_VIOLATION = 1008


class SameOriginMiddleware:
    """Refuses requests and WebSockets that another site's page has started.

    Links to pages work. Programs that are not browsers send neither `Origin` nor `Sec-Fetch-Site`
    and are served.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve or refuse, as ASGI asks."""
        refusal = _refusal(scope) if scope["type"] in ("http", "websocket") else None
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": refusal})
        else:
            await PlainTextResponse(refusal, status_code=403)(scope, receive, send)


def guarded(app: App, hosts: list[str]) -> App:
    """Return `app` for requests to `hosts` only, and from pages of its own only."""
    return TrustedHostMiddleware(SameOriginMiddleware(app), allowed_hosts=hosts, www_redirect=False)


def _refusal(scope: Scope) -> str | None:
    headers = Headers(scope=scope)
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != headers.get("host"):
        return "refused: the page that asks is of another origin"
    if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not _is_link(
        scope, headers
    ):
        return "refused: the page that asks is of another site"
    # Only POST is subject to all of these checks in every browser.
    if scope.get("method") == "GET" and _is_graphql(scope) and _has_query(scope):
        return "refused: queries are sent by POST"
    return None


def _is_link(scope: Scope, headers: Headers) -> bool:
    is_navigation = headers.get("sec-fetch-mode") == "navigate"
    return is_navigation and scope.get("method") == "GET" and not _is_graphql(scope)


def _is_graphql(scope: Scope) -> bool:
    return str(scope["path"]).rstrip("/").endswith("/graphql")


def _has_query(scope: Scope) -> bool:
    return "query" in parse_qs(scope["query_string"].decode("latin-1"))


def main() -> None:
    """Run `dagster-webserver` with its application guarded."""
    from mastodon_assets.config.settings import load_settings

    hosts = load_settings().ui_hosts.split(",")
    cli: Any = import_module("dagster_webserver.cli")
    build = cli.create_app_from_workspace_process_context

    def build_guarded(*arguments: Any, **options: Any) -> App:
        return guarded(build(*arguments, **options), hosts)

    cli.create_app_from_workspace_process_context = build_guarded
    cli.main()


if __name__ == "__main__":
    main()
