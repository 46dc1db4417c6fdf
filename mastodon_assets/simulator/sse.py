"""How a thing is written on the wire: JSON, and frames of server-sent events.

Observed on Mastodon's streaming server: LF only, no `id:` or `retry:` lines, one data line an
event, comments with a single newline.
"""

import json
from typing import Any

GREETING = b":)\n"
HEARTBEAT = b":thump\n"


def json_text(value: Any) -> str:
    """Compact JSON; characters stand as they are, as in Mastodon's JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def utf8(text: str) -> bytes:
    r"""JSON text as UTF-8. A lone surrogate has no UTF-8 and becomes its JSON escape, `\ud83d`."""
    return text.encode("utf-8", errors="backslashreplace")


def event_frame(kind: str, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode("ascii"), data)
