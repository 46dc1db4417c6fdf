"""What a server leaves out for the token's account: blocked and muted accounts and domains.

What belongs here: the requests that show it. The server filters streams and timelines by these
lists, and says nothing (mastodon/streaming/index.js); chosen languages are in no list.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mastodon_assets.ingest.api.errors import RefusedError
from mastodon_assets.ingest.api.transport import json_of

if TYPE_CHECKING:
    from mastodon_assets.ingest.api.client import MastodonClient

# The scopes are those of Mastodon's API documentation for the three lists.
SCOPES = {"blocks": "read:blocks", "mutes": "read:mutes", "domain_blocks": "read:blocks"}
_UNAUTHORIZED = 401
_NO_SUCH_LIST = frozenset({404, 405, 410, 501})


def filter_counts(client: "MastodonClient") -> Mapping[str, int | None]:
    """Return the length of each list, at most 80; None if the token may not read it.

    Lists that the server does not have are left out (GoToSocial, Takahe).

    Raises:
        RefusedError: The token is not valid.
        ServiceUnavailableError: There is no answer.
    """
    counts: dict[str, int | None] = {}
    for name in SCOPES:
        answer = client.ask(f"/api/v1/{name}?limit=80")
        if answer.status_code == _UNAUTHORIZED:
            raise RefusedError("the token is not valid", _UNAUTHORIZED, is_of_token=True)
        if answer.status_code in _NO_SUCH_LIST:
            continue
        listed = json_of(answer)
        counts[name] = len(listed) if answer.is_success and isinstance(listed, list) else None
    return counts


def filters_text(counts: Mapping[str, int | None]) -> str | None:
    """Return what the account does not see, in one line; None if nothing is known of."""
    found = [f"{count} {name.replace('_', ' ')}" for name, count in counts.items() if count]
    if not found:
        return None
    return (
        f"the token's account has {', '.join(found)}: their posts do not arrive; remove them, or"
        " use a separate account"
    )
