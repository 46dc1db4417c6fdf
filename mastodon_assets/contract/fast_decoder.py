"""Posts as our own ingester writes them, read in a fifth of the time.

What belongs here: a narrow reading of the contract. `contract.decode` says what a message is; this
takes a message only where that would accept it and give the same fields, and leaves every other to
it. A test holds the two against each other.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from mastodon_assets.contract.messages import NO_LANGUAGE, plain_tags, post_id

if TYPE_CHECKING:
    import pyarrow as pa

# NUL, which the text of a table cannot hold, is replaced by `contract`.
_ESCAPED_NUL = b"\\u0000"

_Short = Annotated[str, Meta(min_length=1, max_length=255)]
_OptionalShort = Annotated[str, Meta(max_length=255)] | None
_Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
# UTC, and no more digits than a timestamp holds. Whether there is such a day is seen later.
_Time = Annotated[
    str,
    Meta(
        pattern=r"\A([1-8][0-9]{3}|9[0-8][0-9]{2})-[0-9]{2}-[0-9]{2}"
        r"T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?Z\Z"
    ),
]


class FastPost(msgspec.Struct, forbid_unknown_fields=True, gc=False, frozen=True):
    """An upsert of version 1 with fields of the contract alone, as `message.schema.json` has it."""

    v: Literal[1]
    op: Literal["upsert"]
    instance: _Short
    id: _Short
    uri: Annotated[str, Meta(min_length=1, max_length=4096)]
    created_at: _Time
    received_at: _Time
    username: Annotated[str, Meta(min_length=1, max_length=500)]
    content: str
    hashtags: list[Annotated[str, Meta(max_length=500)]]
    favourites: _Count
    reblogs: _Count
    replies: _Count
    origin: Literal["stream", "backfill", "simulator", "replay"]
    edited_at: _Time | None = None
    url: str | None = None
    user_id: _OptionalShort = None
    language: _OptionalShort = None
    content_html: str | None = None
    visibility: _OptionalShort = None
    sensitive: bool | None = None
    spoiler_text: str | None = None
    in_reply_to_id: _OptionalShort = None
    bot: bool | None = None


# Columns named as the field, and of its type.
_SAME_NAMES = (
    *("instance", "username", "user_id", "favourites", "reblogs", "replies"),
    *("visibility", "in_reply_to_id", "content_html"),
)
_DECODER = msgspec.json.Decoder(FastPost)


def decode_fast(value: bytes | None) -> FastPost | None:
    """The post in a record's value; None where it is for `contract.decode` to look at."""
    if value is None or _ESCAPED_NUL in value:
        return None
    try:
        return _DECODER.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def fast_columns(posts: Sequence[FastPost]) -> dict[str, Any]:
    """Columns of `parse.PARSED_SCHEMA` that come of the messages.

    Raises: pyarrow.ArrowInvalid where a day of one of them is in no calendar.
    """
    import pyarrow as pa

    columns: dict[str, Any] = {
        name: _as_times([getattr(post, name) for post in posts])
        for name in ("created_at", "edited_at", "received_at")
    }
    columns["op"] = pa.repeat(pa.scalar("upsert"), len(posts))
    columns["status_id"] = [post.id for post in posts]
    columns["uri"] = uris = [post.uri for post in posts]
    columns["id"] = [post_id(uri) for uri in uris]
    columns["lang"] = [post.language or NO_LANGUAGE for post in posts]
    columns["hashtags"] = [plain_tags(post.hashtags) for post in posts]
    columns["content_txt"] = [post.content for post in posts]
    columns["is_bot"] = [bool(post.bot) for post in posts]
    columns["is_sensitive"] = [bool(post.sensitive or post.spoiler_text) for post in posts]
    for name in _SAME_NAMES:
        columns[name] = [getattr(post, name) for post in posts]
    return columns


def _as_times(texts: Sequence[str | None]) -> "pa.Array":
    import pyarrow as pa

    return pa.array(texts, pa.string()).cast(pa.timestamp("us", "UTC"))
