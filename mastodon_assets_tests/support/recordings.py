"""Recorded answers of real servers, whose posts and people are invented."""

import json
import re
from pathlib import Path
from typing import Any

from mastodon_assets_tests.support.odd_server import Answer

_FOLDER = Path(__file__).parents[1] / "data" / "wire"


def exchange(name: str) -> dict[str, Any]:
    """Return a recorded exchange: request, `status`, `headers`, `body`."""
    found: dict[str, Any] = json.loads((_FOLDER / f"{name}.json").read_bytes())
    return found


def recorded_answer(name: str) -> Answer:
    """Return the answer of a recorded exchange, its streaming address being this machine."""
    found = exchange(name)
    body = found["body"]
    text = body if isinstance(body, str) else json.dumps(body)
    text = re.sub(r"wss://[a-z.]+", "wss://127.0.0.1", text)
    kind = found["headers"].get("content-type", "application/json")
    return Answer(text.encode(), found["status"], content_type=kind)


def recorded_text(name: str) -> str:
    """Return a recording that is plain text."""
    return (_FOLDER / name).read_text(encoding="utf-8")


def recorded_lines(name: str) -> list[dict[str, Any]]:
    """Return what was recorded one thing per line."""
    return [json.loads(line) for line in (_FOLDER / f"{name}.ndjson").read_bytes().splitlines()]
