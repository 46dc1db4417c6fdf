"""The stream's format: JSON, and frames of server-sent events (SSE).

As observed on Mastodon's streaming server: LF only, no `id:` or `retry:` lines, one data line per
event, comments with a single newline.
"""

import json
from typing import Any

GREETING = b":)\n"
HEARTBEAT = b":thump\n"


def json_text(value: Any) -> str:
    """Return compact JSON; non-ASCII characters are not escaped, as in Mastodon's JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def utf8(text: str) -> bytes:
    r"""Encode JSON text as UTF-8; a lone surrogate becomes its JSON escape, such as `\ud83d`."""
    return text.encode("utf-8", errors="backslashreplace")


def event_frame(kind: str, data: bytes) -> bytes:
    """Return an event of `kind` as bytes of the stream."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode("ascii"), data)
