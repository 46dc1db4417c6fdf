"""Messages that keep and that break the contract, for every reader of it."""

import orjson

from mastodon_assets_tests.support.records import delete, upsert

_UPSERT = orjson.dumps(upsert())


def _with(**changes: object) -> bytes:
    return orjson.dumps(upsert(**changes))  # type: ignore[arg-type]


def _without(name: str) -> bytes:
    return orjson.dumps({key: value for key, value in upsert().items() if key != name})


_FIRST_VERSION = {
    "id": "42",
    "created_at": "2026-11-20T12:00:00+00:00",
    "username": "ada",
    "user_id": "7",
    "language": "en",
    "content_html": "<p>x</p>",
    "content": "x",
    "hashtags": ["A"],
    "favourites": 1,
    "reblogs": 2,
}

ACCEPTED: dict[str, bytes] = {
    "upsert": _UPSERT,
    "upsert with spaces around": b" \n" + _UPSERT + b"\r\n ",
    "upsert with a field nobody knows": _with(future_field={"a": [1]}),
    "upsert without the optional fields": orjson.dumps(
        {
            key: value
            for key, value in upsert().items()
            if key not in ("url", "edited_at", "user_id", "language", "content_html", "visibility")
            and key not in ("sensitive", "spoiler_text", "in_reply_to_id", "bot")
        }
    ),
    "language null": _with(language=None),
    "language empty": _with(language=""),
    "language zh-TW": _with(language="zh-TW"),
    "language that is no tag": _with(language="한국어" * 85),
    "offset instead of Z": _with(created_at="2026-11-20T17:29:00.123456+05:30"),
    "nine digits of a second": _with(created_at="2026-11-20T11:59:00.123456789Z"),
    "leap day": _with(created_at="2024-02-29T00:00:00Z"),
    "far future": _with(created_at="9898-12-31T23:59:59-12:00"),
    "a whole number with a fraction of zero": _with(favourites=3.0),
    "ULID": _with(id="01GZ5QH7ZB6Q6M6CQFZ0YHDF0R"),
    "NUL in the text": _with(content="a\x00b"),
    "half of a surrogate pair": _UPSERT.replace(b'"hello"', b'"a\\ud83db"'),
    "line separator in the text": _with(content="a\u2028b\u0085c"),
    "the same key twice": _UPSERT[:-1] + b',"content":"later"}',
    "no text": _with(content=""),
    "delete": orjson.dumps(delete()),
    "delete with nulls": orjson.dumps(delete(uri=None, content=None, hashtags=None)),
    "first version": orjson.dumps(_FIRST_VERSION),
    "first version with a numeric id": orjson.dumps({**_FIRST_VERSION, "id": 42}),
    "first version, sparse": orjson.dumps(
        {"id": "1", "created_at": "2026-11-20T12:00:00Z", "username": "ada"}
    ),
}

REJECTED: dict[str, bytes | None] = {
    "no value": None,
    "empty": b"",
    "not JSON": b"hello",
    "cut off": _UPSERT[:-10],
    "trailing text": _UPSERT + b" x",
    "two documents": _UPSERT + _UPSERT,
    "not UTF-8": _UPSERT.replace(b"hello", b"h\xffllo"),
    "byte order mark": b"\xef\xbb\xbf" + _UPSERT,
    "NaN": _UPSERT.replace(b'"favourites":0', b'"favourites":NaN'),
    "NaN in a field nobody knows": _UPSERT[:-1] + b',"x":NaN}',
    "NaN next to half of a surrogate pair": _UPSERT[:-1] + b',"x":NaN,"y":"\\ud83d"}',
    "single quotes": b"{'v': 1}",
    "comment": b"/* x */" + _UPSERT,
    "control character": _UPSERT.replace(b"hello", b"he\nllo"),
    "nested too deep": b'{"v":' + b"[" * 100_000,
    "nested too deep next to NUL": _UPSERT[:-1]
    + b',"x":"\\u0000","y":'
    + b"[" * 1000
    + b"]" * 1000
    + b"}",
    "array": b"[" + _UPSERT + b"]",
    "string": b'"upsert"',
    "null": b"null",
    "other version": _with(v=2),
    "version as text": _with(v="1"),
    "version as boolean": _with(v=True),
    "no version": _without("v"),
    "no operation": _without("op"),
    "unknown operation": _with(op="boost"),
    "no id": _without("id"),
    "empty id": _with(id=""),
    "id as number": _with(id=1),
    "id too long": _with(id="1" * 256),
    "no uri": _without("uri"),
    "uri null": _with(uri=None),
    "uri as object": _with(uri={"a": 1}),
    "content as object": _with(content={"a": 1}),
    "content null": _with(content=None),
    "no time": _without("created_at"),
    "time as number": _with(created_at=1763640000),
    "time in words": _with(created_at="yesterday"),
    "time without zone": _with(created_at="2026-11-20T11:59:00"),
    "time with a space": _with(created_at="2026-11-20 11:59:00Z"),
    "time in lower case": _with(created_at="2026-11-20t11:59:00z"),
    "time without colon in the offset": _with(created_at="2026-11-20T11:59:00+0000"),
    "thirtieth of February": _with(created_at="2026-02-30T00:00:00Z"),
    "no leap day": _with(created_at="2026-02-29T00:00:00Z"),
    "24 o'clock": _with(created_at="2026-11-20T24:00:00Z"),
    "leap second": _with(created_at="2026-12-31T23:59:60Z"),
    "year one": _with(created_at="0001-01-01T00:00:00+05:00"),
    "year 9999": _with(created_at="9999-12-31T23:59:59-05:00"),
    "Arabic digits": _with(created_at="٢٠٢٦-11-20T11:59:00Z"),
    "edit time in words": _with(edited_at="now"),
    "count below zero": _with(favourites=-1),
    "count with a fraction": _with(favourites=1.5),
    "count as text": _with(favourites="1"),
    "count as boolean": _with(favourites=True),
    "count null": _with(reblogs=None),
    "count too large": _with(replies=2**31),
    "count far too large": _UPSERT.replace(b'"favourites":0', b'"favourites":1' + b"0" * 400),
    "hashtags null": _with(hashtags=None),
    "hashtags as text": _with(hashtags="news"),
    "hashtag as object": _with(hashtags=[{"name": "news"}]),
    "huge hashtag": _with(hashtags=["x" * 501]),
    "huge handle": _with(username="x" * 501),
    "unknown origin": _with(origin="carrier pigeon"),
    "bot as text": _with(bot="no"),
    "delete without id": orjson.dumps(
        {"v": 1, "op": "delete", "instance": "a", "origin": "stream"}
    ),
    "delete with text": orjson.dumps(delete(content="x")),
    "first version with a field more": orjson.dumps({**_FIRST_VERSION, "uri": "x"}),
    "first version without time": orjson.dumps({"id": "1", "username": "ada"}),
}
