"""The message contract of the topic `mastodon_stream`: JSON bytes to fields and back.

What belongs here: what a message is, and why one is refused. `message.schema.json` decides. The
ingester, Spark's executors, replay and the tests use the same functions; none needs Spark or a
database.
"""

import json
import re
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any

import jsonschema_rs
import orjson
import xxhash

from mastodon_assets.contract.identity import UNKNOWN_INSTANCE, account_form, tag_forms
from mastodon_assets.contract.times import parse_utc
from mastodon_assets.errors import PlatformError

# PostgreSQL's text can hold neither NUL nor half of a surrogate pair.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_REPLACEMENT = "�"
_REASON_LENGTH = 300
# `lang` of a post that declares no language.
NO_LANGUAGE = "und"
# `origin` of recorded posts, which do not show what their server has now.
IMPORT = "import"
# The seed of Spark's `xxhash64`.
_HASH_SEED = 42

Message = dict[str, Any]


class ContractError(PlatformError):
    """Raised if a message breaks the contract. It names the field, never its value."""


@cache
def message_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a message."""
    text = files("mastodon_assets.contract").joinpath("message.schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def encode(message: Message) -> bytes:
    """Encode a message as JSON in UTF-8, with U+FFFD for characters that PostgreSQL cannot hold.

    Raises:
        ContractError: The message breaks the contract.
    """
    try:
        value: bytes = orjson.dumps(message)
    except TypeError:
        # Half of a surrogate pair, or something that the contract refuses, such as a huge number.
        return _encode_cleaned(message)
    if b"\\u0000" in value:
        return _encode_cleaned(message)
    _check(message)
    return value


def _encode_cleaned(message: Message) -> bytes:
    cleaned = _storable(message)
    _check(cleaned)
    value: bytes = orjson.dumps(cleaned)
    return value


def message_key(instance: str, status_id: str) -> bytes:
    """Return the record's key. It only spreads load; nothing relies on order within a key."""
    key: str = _storable(f"{instance}/{status_id}")
    return key.encode()


def names_of_key(key: bytes) -> tuple[str, str] | None:
    """Return server and status id of a record's key; None if it is no key of `message_key`."""
    try:
        instance, slash, status_id = key.decode().partition("/")
    except UnicodeDecodeError:
        return None
    return (instance, status_id) if slash and "\0" not in status_id + instance else None


def post_id(uri: str) -> int:
    """Return the key of a post, `toots_raw.id`: Spark's signed `xxhash64` of its uri."""
    unsigned = xxhash.xxh64_intdigest(uri.encode(), seed=_HASH_SEED)
    return unsigned - 2**64 if unsigned >= 2**63 else unsigned


def language_of(declared: str | None) -> str:
    """Return `lang` of a post; a text that is no language tag (RFC 5646, ASCII) counts as none.

    Together with a long hashtag such a text would be longer than a key of an index may be.
    """
    return declared if declared and declared.isascii() else NO_LANGUAGE


def decode(value: bytes | None, kafka_time: datetime) -> Message:
    """Decode one record into the fields of the tables.

    Args:
        value: The record's value.
        kafka_time: The record's time. Messages of the first version have no `received_at` and
            get this one.

    Returns:
        op, instance, status_id, received_at and, for an upsert, uri, created_at, edited_at,
        username, user_id, lang, content_txt, content_html, hashtags, favourites, reblogs, replies,
        visibility, is_bot, is_sensitive, is_imported, in_reply_to_id. Times are datetimes in UTC.

    Raises:
        ContractError: The value is no message of the contract.
    """
    document = _parse(value)
    _check(document)
    if "v" not in document:
        return _first_version(document, kafka_time)
    if document["op"] == "delete":
        return {
            "op": "delete",
            "instance": document["instance"],
            "status_id": document["id"],
            "received_at": parse_utc(document["received_at"]),
        }
    return _upsert(document)


def _parse(value: bytes | None) -> Any:
    if value is None:
        raise ContractError("no value")
    try:
        document = orjson.loads(value)
    except orjson.JSONDecodeError:
        # orjson refuses half of a surrogate pair; such a post is kept.
        return _storable(_parse_leniently(value))
    return _storable(document) if b"\\u0000" in value else document


def _parse_leniently(value: bytes) -> Any:
    try:
        return json.loads(value.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise ContractError("not UTF-8") from error
    except RecursionError as error:
        raise ContractError("not JSON: nested too deeply") from error
    except json.JSONDecodeError as error:
        raise ContractError(f"not JSON: {error.msg} at character {error.pos}") from error
    except ValueError as error:
        raise ContractError("not JSON: a number has too many digits") from error


def _refuse_constant(_name: str) -> Any:
    raise ContractError("not JSON: NaN and Infinity are not numbers")


def _storable(document: Any) -> Any:
    try:
        return _replaced(document)
    except RecursionError as error:
        raise ContractError("nested too deeply") from error


def _replaced(document: Any) -> Any:
    if isinstance(document, str):
        return _UNSTORABLE.sub(_REPLACEMENT, document)
    if isinstance(document, list):
        return [_replaced(item) for item in document]
    if isinstance(document, dict):
        return {_replaced(key): _replaced(value) for key, value in document.items()}
    return document


@cache
def _validator() -> Any:
    return jsonschema_rs.Draft202012Validator(message_schema(), validate_formats=True, mask="value")


def _check(document: Any) -> None:
    validator = _validator()
    if validator.is_valid(document):
        return
    error = next(validator.iter_errors(document))
    path = ".".join(str(part) for part in error.instance_path)
    reason = f"{path}: {error.message}" if path else error.message
    raise ContractError(reason[:_REASON_LENGTH])


def _upsert(document: Message) -> Message:
    edited_at = document.get("edited_at")
    return {
        "op": "upsert",
        "instance": document["instance"],
        "status_id": document["id"],
        "uri": document["uri"],
        "created_at": parse_utc(document["created_at"]),
        "edited_at": parse_utc(edited_at) if edited_at else None,
        "received_at": parse_utc(document["received_at"]),
        "username": account_form(document["username"]),
        "user_id": document.get("user_id"),
        "lang": language_of(document.get("language")),
        "content_txt": document["content"],
        "content_html": document.get("content_html"),
        "hashtags": tag_forms(document["hashtags"]),
        "favourites": int(document["favourites"]),
        "reblogs": int(document["reblogs"]),
        "replies": int(document["replies"]),
        "visibility": document.get("visibility"),
        "is_bot": bool(document.get("bot")),
        "is_sensitive": bool(document.get("sensitive") or document.get("spoiler_text")),
        "is_imported": document["origin"] == IMPORT,
        "in_reply_to_id": document.get("in_reply_to_id"),
    }


def _first_version(document: Message, kafka_time: datetime) -> Message:
    status_id = str(document["id"])
    user_id = document.get("user_id")
    return {
        "op": "upsert",
        "instance": UNKNOWN_INSTANCE,
        "status_id": status_id,
        "uri": f"{UNKNOWN_INSTANCE}/{status_id}",
        "created_at": parse_utc(document["created_at"]),
        "edited_at": None,
        "received_at": kafka_time,
        "username": account_form(document["username"]),
        "user_id": None if user_id is None else str(user_id),
        "lang": language_of(document.get("language")),
        "content_txt": document.get("content") or "",
        "content_html": document.get("content_html"),
        "hashtags": tag_forms(document.get("hashtags") or []),
        "favourites": int(document.get("favourites") or 0),
        "reblogs": int(document.get("reblogs") or 0),
        "replies": 0,
        "visibility": None,
        "is_bot": False,
        "is_sensitive": False,
        "is_imported": False,
        "in_reply_to_id": None,
    }
