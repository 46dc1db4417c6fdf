"""`Status` documents made by hand, as the stream sends them."""

from typing import Any


def account(**changes: Any) -> dict[str, Any]:
    """An account of another server that consents to all there is."""
    document = {
        "id": "7",
        "username": "ada",
        "acct": "ada@one.example",
        "url": "https://one.example/@ada",
        "note": "<p>Engines and numbers.</p>",
        "bot": False,
        "noindex": False,
        "indexable": True,
    }
    return {**document, **changes}


def status(status_id: Any = "1", **changes: Any) -> dict[str, Any]:
    """A public post."""
    document = {
        "id": status_id,
        "uri": f"https://one.example/users/ada/statuses/{status_id}",
        "url": f"https://one.example/@ada/{status_id}",
        "created_at": "2026-11-20T11:59:00.000Z",
        "edited_at": None,
        "account": account(),
        "content": "<p>Good morning</p>",
        "tags": [],
        "language": "en",
        "favourites_count": 1,
        "reblogs_count": 2,
        "replies_count": 3,
        "visibility": "public",
        "sensitive": False,
        "spoiler_text": "",
        "in_reply_to_id": None,
        "reblog": None,
    }
    return {**document, **changes}
