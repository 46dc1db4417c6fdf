"""The check of Host and Origin in front of a web page of this machine.

A browser sends to 127.0.0.1 whatever page of whatever site asks it to. What belongs here: refusing
what another site's page has started, and requests under names that are not ours.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

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

    def __init__(
        self,
        app: App,
        is_page: Callable[[Scope], bool],
        refusal: Callable[[Scope], str | None],
    ) -> None:
        self._app = app
        self._is_page = is_page
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve or refuse, as ASGI asks."""
        reason = self._reason(scope) if scope["type"] in ("http", "websocket") else None
        if reason is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": reason})
        else:
            await PlainTextResponse(reason, status_code=403)(scope, receive, send)

    def _reason(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != headers.get("host"):
            return "refused: the page that asks is of another origin"
        is_foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        if is_foreign and not self._is_link(scope, headers):
            return "refused: the page that asks is of another site"
        return self._refusal(scope)

    def _is_link(self, scope: Scope, headers: Headers) -> bool:
        is_navigation = headers.get("sec-fetch-mode") == "navigate"
        return is_navigation and scope.get("method") == "GET" and self._is_page(scope)


def _is_page(_scope: Scope) -> bool:
    return True


def _no_refusal(_scope: Scope) -> None:
    return None


def guarded(
    app: App,
    hosts: list[str],
    *,
    is_page: Callable[[Scope], bool] = _is_page,
    refusal: Callable[[Scope], str | None] = _no_refusal,
) -> App:
    """Return `app` for requests to `hosts` only, and from pages of its own only.

    Args:
        app: The application.
        hosts: Names under which browsers may open it.
        is_page: Whether a request may be a link of another site.
        refusal: Further reasons to refuse a request; None to serve it.
    """
    checked = SameOriginMiddleware(app, is_page, refusal)
    return TrustedHostMiddleware(checked, allowed_hosts=hosts, www_redirect=False)
