"""Addresses that may get the token, and proxies."""

import gzip
import socket
import ssl
from collections.abc import Iterator, Sequence

import httpx
import pytest

from mastodon_assets.errors import SettingsError
from mastodon_assets.ingest.api import event_stream
from mastodon_assets.ingest.api.errors import unreachable
from mastodon_assets.ingest.api.transport import (
    UntrustedAddressError,
    checked_stream_base,
    decoded,
    new_client,
    proxy_for,
)

SERVER = "https://one.example"
HERE = "http://127.0.0.1:5"


class _Chunks(httpx.SyncByteStream):
    """Bytes as they come from the network."""

    def __init__(self, chunks: Sequence[bytes]) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._chunks)


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_events_whose_ends_are_divided_between_chunks_do_end(
    end: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "_LONGEST_EVENT_BYTES", 100)
    for place in range(1, len(end)):
        chunks = [b"data: 1" + end[:place], end[place:]] * 50
        assert list(event_stream._TimedBytes(_Chunks(chunks), "")) == chunks


def test_nothing_is_read_after_the_end_of_compressed_bytes() -> None:
    """The decompressor keeps such bytes: a stream could fill the memory."""
    pieces = iter([gzip.compress(b"a") + b"b", b"c", b"d"])

    assert b"".join(decoded(pieces, "gzip")) == b"a"
    assert list(pieces) == [b"c", b"d"]


@pytest.mark.parametrize(
    ("base", "named", "expected"),
    [
        (SERVER, None, SERVER),
        (SERVER, "wss://one.example", SERVER),
        (SERVER, "wss://stream.one.example/", "https://stream.one.example"),
        (SERVER, "https://1.1.1.1", "https://1.1.1.1"),
        (HERE, "ws://127.0.0.1:6", "http://127.0.0.1:6"),
        # GoToSocial names wss:// and its host, however it is served.
        (HERE, "wss://127.0.0.1", HERE),
    ],
)
def test_the_stream_is_at_the_server_or_at_a_public_name(
    base: str, named: str | None, expected: str
) -> None:
    assert checked_stream_base(base, named) == expected


@pytest.mark.parametrize(
    "named",
    [
        "ws://one.example",
        "ws://stream.one.example",
        "wss://127.0.0.1",
        "wss://localhost",
        "wss://a.localhost",
        "wss://[::1]:8443",
        "wss://10.0.0.1",
        "wss://192.168.1.1",
        "wss://169.254.169.254",
        "wss://0.0.0.0",
        "ftp://one.example",
        "wss://[",
    ],
)
def test_a_server_cannot_send_the_token_to_a_private_address(named: str) -> None:
    with pytest.raises(UntrustedAddressError):
        checked_stream_base(SERVER, named)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:5", "http://localhost:5", "http://[::1]:5", "https://no.example"]
)
def test_no_proxy_sees_this_machine_or_an_exception(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:8080")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:8080")
    monkeypatch.setenv("ALL_PROXY", "http://proxy.example:8080")
    monkeypatch.setenv("NO_PROXY", "[::1],no.example")
    assert proxy_for(url) is None
    assert proxy_for(SERVER) == "http://proxy.example:8080"
    new_client(url, read_seconds=1).close()


@pytest.mark.parametrize("proxy", ["socks5://proxy.example:1080", "nonsense://x"])
def test_a_proxy_that_cannot_be_used_is_one_line(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(SettingsError, match="the proxy of the environment") as caught:
        new_client(SERVER, read_seconds=1)
    assert "\n" not in str(caught.value)


def _bad_certificate() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "verify failed")
    error.verify_message = "certificate has expired"
    return error


@pytest.mark.parametrize(
    ("cause", "says"),
    [
        (httpx.ProxyError("x"), "the proxy refused; check HTTPS_PROXY and NO_PROXY"),
        (socket.gaierror(-2, "x"), "its name is not known (DNS)"),
        (_bad_certificate(), "its certificate is not valid (certificate has expired)"),
        (ssl.SSLError(1, "x"), "no TLS; does the server speak https there?"),
        (ConnectionRefusedError(111, "x"), "the connection is refused"),
        (httpx.ReadTimeout("x"), "no answer in time"),
        (httpx.RemoteProtocolError("x"), "RemoteProtocolError"),
        (
            ConnectionResetError(),
            "the server ended the connection in the middle; was it restarted?",
        ),
        (
            httpx.RemoteProtocolError("peer closed connection without sending complete message"),
            "the server ended the connection in the middle; was it restarted?",
        ),
    ],
)
def test_the_causes_of_no_answer_are_distinguished(cause: Exception, says: str) -> None:
    wrapped = httpx.ConnectError("the same for all")
    wrapped.__cause__ = cause
    error = cause if says == "RemoteProtocolError" else wrapped
    assert str(unreachable("one.example", "no answer", error)).startswith(
        f"one.example: no answer: {says}"
    )
