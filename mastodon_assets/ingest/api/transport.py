"""HTTP to a Mastodon server: which addresses may get the token, proxies, certificates, bodies.

What belongs here: everything below the API, the same for REST, event streams and sockets. What is
requested is in `client`.

The token goes to the server in the settings and to the streaming address that it names, only by TLS
or to this machine, and never by a proxy to this machine. Redirects are followed on the same host
only. Bodies are bounded in bytes after decompression and in time.
"""

import ipaddress
import re
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version
from typing import Any
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx
import truststore

from mastodon_assets.errors import ServiceUnavailableError, SettingsError
from mastodon_assets.ingest.api.errors import RefusedError, unreachable

CONNECT_SECONDS = 10
LARGEST_BODY_BYTES = 16 * 1024 * 1024
# A token is shortened for display with dots or an ellipsis, and then copied.
_TOKEN = re.compile(r"[\x21-\x7e]+")
_MOST_REDIRECTS = 3
_PIECE_BYTES = 64 * 1024
# What httpx raises if there is no answer; the last two are for a host that cannot be a name.
NO_ANSWER = (httpx.HTTPError, httpx.InvalidURL, UnicodeError, ValueError)


class UntrustedAddressError(ServiceUnavailableError):
    """Raised if a server names a streaming address that may not get the token."""


def user_agent(contact: str | None) -> str:
    """Return the User-Agent header, with the contact that an administrator can write to."""
    name = f"mastodon-assets/{version('mastodon-assets')}"
    return name if contact is None else f"{name} (+{contact})"


def check_token(token: str) -> None:
    """Refuse a token that was copied from a shortened display.

    Raises:
        SettingsError: The token holds white space or a character that no token has.
    """
    if not _TOKEN.fullmatch(token) or token.endswith("..."):
        raise SettingsError(
            "MASTODON_ACCESS_TOKEN=***: the token is incomplete or holds characters that no token"
            " has (such as … from a shortened display); copy it whole"
        )


def checked_host(url: str) -> str:
    """Return the host of the server's address, lower case.

    Raises:
        SettingsError: The address is neither https nor on this machine.
    """
    host, scheme = _host_of(url), urlsplit(url).scheme if _host_of(url) else ""
    if not host or scheme not in ("http", "https"):
        raise SettingsError(f"MASTODON_API_BASE_URL: {_without_user(url)} is no https:// address")
    if scheme == "http" and not is_loopback(host):
        raise SettingsError(
            f"MASTODON_API_BASE_URL: http://{host} would send the token in the clear; use https://"
        )
    return host


def checked_stream_base(base_url: str, named: str | None) -> str:
    """Return the streaming address as http or https, if it may get the token.

    Args:
        base_url: The server's address in the settings.
        named: The streaming address in the instance document, if any.

    Raises:
        UntrustedAddressError: The address is not https, or is on this machine or in a private
            network while the server is not.
    """
    if not named:
        return base_url
    url = re.sub(r"\Aws(s?)://", r"http\1://", named).rstrip("/")
    host, base = _host_of(url), urlsplit(base_url)
    scheme = urlsplit(url).scheme if host else ""
    if host == base.hostname and base.scheme == "http":
        # Some servers name wss:// and their host even if they serve plain http (GoToSocial).
        return url if scheme == "http" else base_url
    if not host or scheme not in ("http", "https"):
        raise UntrustedAddressError(
            f"{base.hostname} names an unusable streaming address; ask the server's administrators"
        )
    if is_loopback(base.hostname or ""):
        is_trusted = is_loopback(host) or scheme == "https"
    else:
        is_trusted = scheme == "https" and (host == base.hostname or _is_public(host))
    if not is_trusted:
        raise UntrustedAddressError(
            f"{base.hostname} names {scheme}://{host} as its stream, which is not a public https"
            " address, so the token is not sent there; ask the server's administrators"
        )
    return url


def is_loopback(host: str) -> bool:
    """Return whether the host is this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def proxy_for(url: str) -> str | None:
    """Return the proxy of the environment for an address; None for this machine and exceptions."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host) or proxy_bypass(host):
        return None
    proxies = getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


@cache
def tls_context() -> ssl.SSLContext:
    """Return the one TLS policy: the certificates that the machine trusts."""
    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def new_client(url: str, *, read_seconds: float) -> httpx.Client:
    """Return an HTTP client for one server; it follows no redirects by itself.

    Raises:
        SettingsError: The proxy of the environment cannot be used.
    """
    proxy = proxy_for(url)
    try:
        return httpx.Client(
            verify=tls_context(),
            trust_env=False,
            proxy=proxy,
            # Requests are seconds apart: a kept connection would be closed by the server meanwhile.
            limits=httpx.Limits(max_keepalive_connections=0),
            timeout=httpx.Timeout(CONNECT_SECONDS, read=read_seconds),
        )
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        scheme = (proxy or "").partition("://")[0]
        hint = "install socksio, or " if isinstance(error, ImportError) else ""
        raise SettingsError(
            f"the proxy of the environment ({scheme}://…) cannot be used; {hint}change"
            f" {urlsplit(url).scheme.upper()}_PROXY or ALL_PROXY, or add the server to NO_PROXY"
        ) from error


@contextmanager
def opened(
    client: httpx.Client,
    url: str,
    headers: Mapping[str, str],
    *,
    seconds: float,
    is_stream: bool = False,
) -> Iterator[httpx.Response]:
    """Request `url`, following redirects on the same host; yield the response before its body.

    Args:
        client: The client of `new_client`.
        url: The address.
        headers: All headers of the request.
        seconds: Time for the whole answer with all redirects; of a stream, for its headers.
        is_stream: Whether the body of a success may last for ever.

    Raises:
        ServiceUnavailableError: There is no answer, or it is not complete in time.
        RefusedError: The server redirects to another host, or without end.
    """
    with _deadline(seconds) as deadline, _answered(client, url, headers, deadline) as response:
        if is_stream and response.is_success:
            deadline.lift()
        try:
            yield response
        except ServiceUnavailableError as error:
            if deadline.has_passed:
                raise deadline.error(response.url.host) from error
            raise
        # Without a length the body would seem to be complete.
        if deadline.has_passed:
            raise deadline.error(response.url.host)


@contextmanager
def _answered(
    client: httpx.Client, url: str, headers: Mapping[str, str], deadline: "_Deadline"
) -> Iterator[httpx.Response]:
    host = _host_of(url) or url
    for _ in range(_MOST_REDIRECTS + 1):
        try:
            request = client.build_request(
                "GET", url, headers=dict(headers), extensions={"trace": deadline.trace}
            )
            response = _sent(client, request, deadline)
        except NO_ANSWER as error:
            if deadline.has_passed:
                raise deadline.error(host) from error
            raise unreachable(host, "no answer", error) from error
        if not response.has_redirect_location:
            break
        target = _joined(url, response.headers["Location"])
        response.close()
        if not _is_same_place(url, target):
            raise RefusedError(
                f"{host} redirects to {_host_of(target) or 'an unusable address'}, which does not"
                " get the token; set MASTODON_API_BASE_URL to the address that answers itself",
                response.status_code,
            )
        url = target
    else:
        raise RefusedError(f"{host} redirects without end; ask its admins", response.status_code)
    try:
        yield response
    finally:
        response.close()


def json_of(response: httpx.Response) -> Any:
    """Return the parsed body of an answer that was read; None if it is not JSON."""
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None


def body_of(response: httpx.Response, *, seconds: float) -> bytes:
    """Read and decompress the body.

    Raises:
        ServiceUnavailableError: The body is too large, or not complete in `seconds`.
    """
    host = response.url.host
    deadline = time.monotonic() + seconds
    body = bytearray()
    try:
        for piece in decoded(response.iter_raw(), response.headers.get("Content-Encoding", "")):
            body += piece
            if len(body) > LARGEST_BODY_BYTES:
                raise ServiceUnavailableError(
                    f"{host} sent a body of more than {LARGEST_BODY_BYTES // 2**20} MiB;"
                    " is MASTODON_API_BASE_URL a Mastodon server?"
                )
            if time.monotonic() > deadline:
                raise ServiceUnavailableError(
                    f"{host}: the answer was not complete after {seconds:.0f} s; try again later"
                )
    except (httpx.HTTPError, httpx.StreamError, zlib.error) as error:
        raise unreachable(host, "the answer broke off", error) from error
    return bytes(body)


def decoded(pieces: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """Decompress gzip and deflate, in pieces of bounded size.

    Raises:
        httpx.StreamError: The encoding was not offered.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        yield from pieces
        return
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise httpx.StreamError(f"an encoding that was not offered: {encoding[:20]}")
    # 32 more than the window's bits: with the header of gzip or zlib, whichever comes.
    decompressor = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    for piece in pieces:
        waiting = piece
        while waiting:
            yield decompressor.decompress(waiting, _PIECE_BYTES)
            waiting = decompressor.unconsumed_tail
        if decompressor.eof:
            # Bytes after the end would be kept, however many there are.
            return
    yield decompressor.flush(_PIECE_BYTES)


class _Deadline:
    """A deadline for a request, whatever the server sends meanwhile.

    The client's own time limit begins again with each byte, so a server that sends its headers byte
    by byte would keep the request for ever.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(max(0, seconds), self._break_off)
        self._timer.daemon = True
        self.has_passed = False

    def start(self) -> None:
        """Let the time run."""
        self._timer.start()

    def lift(self) -> None:
        """Let the rest of the answer take as long as it takes."""
        self._timer.cancel()

    def trace(self, event: str, details: Mapping[str, Any]) -> None:
        """Note the socket of the connection; called by the HTTP client."""
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self._socket = details["return_value"].get_extra_info("socket")
            if self.has_passed:
                self._break_off()

    def error(self, host: str) -> ServiceUnavailableError:
        """Return the error for a request that was broken off."""
        return ServiceUnavailableError(
            f"{host}: the answer was not complete after {self._seconds:.0f} s; try again later"
        )

    def _break_off(self) -> None:
        self.has_passed = True
        if self._socket is not None:
            # The reading thread gets an end of file.
            with suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


@contextmanager
def _deadline(seconds: float) -> Iterator[_Deadline]:
    deadline = _Deadline(seconds)
    deadline.start()
    try:
        yield deadline
    finally:
        deadline.lift()


def _sent(client: httpx.Client, request: httpx.Request, deadline: _Deadline) -> httpx.Response:
    """Send; once more if the server had closed the connection that was kept."""
    try:
        return client.send(request, stream=True, follow_redirects=False)
    except httpx.RemoteProtocolError:
        if deadline.has_passed:
            raise
        return client.send(request, stream=True, follow_redirects=False)


def _joined(url: str, location: str) -> str:
    """Return the address that a redirect names; empty if it is none."""
    try:
        return urljoin(url, location)
    except ValueError:  # brackets that are none
        return ""


def _is_same_place(url: str, target: str) -> bool:
    try:
        old, new = urlsplit(url), urlsplit(target)
        return (old.scheme, old.hostname, old.port) == (new.scheme, new.hostname, new.port)
    except ValueError:
        return False


def _is_public(host: str) -> bool:
    """Whether the host is a public name or address; an unknown name fails by itself, later."""
    if is_loopback(host):
        return False
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_global
    addresses: list[str] = []
    with suppress(OSError, UnicodeError):
        addresses = [str(found[4][0]) for found in socket.getaddrinfo(host, None)]
    return all(ipaddress.ip_address(each.partition("%")[0]).is_global for each in addresses)


def _host_of(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        return parts.hostname if parts.port != 0 else None
    except ValueError:  # brackets or a port that are none
        return None


def _without_user(url: str) -> str:
    return url.rpartition("@")[2]
