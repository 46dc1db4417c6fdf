"""Posts of whole days as Parquet: posts, hashtags, mentions and links, which join by `id`.

What belongs here: the files' columns, and writing them in bounded memory. A day has one file per
table; a file is complete or absent. The files hold texts and names, so only their owner reads them.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg import Connection
from psycopg.rows import dict_row
from pydantic import SecretStr

from mastodon_assets.errors import PlatformError
from mastodon_assets.files import atomic_file
from mastodon_assets.reports.post_links import links_of
from mastodon_assets.warehouse.database import MissingRightsError, transaction

if TYPE_CHECKING:
    import pyarrow as pa

# In memory at once; also the rows of a row group, which a reader loads as a whole.
_POSTS_AT_ONCE = 5_000
_POSTS = """
SELECT r.id, r.uri, r.instance, r.status_id, r.created_at, r.edited_at, r.received_at, r.event_at,
       r.username, r.user_id, r.lang, r.visibility, r.in_reply_to_id, r.is_bot, r.is_sensitive,
       r.favourites, r.reblogs, r.replies, r.content_txt, s.label_str, s.prob_pos, s.reason,
       s.model_version, r.hashtags, r.content_html
  FROM masto.toots_raw r
  LEFT JOIN LATERAL (SELECT * FROM masto.toots_sentiment WHERE id = r.id OFFSET 0) s ON true
 WHERE r.event_at >= %s AND r.event_at < %s
 ORDER BY r.event_at, r.id
"""


class PostExportError(PlatformError):
    """A day could not be written; its files are unchanged, those of earlier days are complete."""


@dataclass(frozen=True)
class ExportedDay:
    """A day that was written, with the rows of its files by table."""

    day: date
    rows: dict[str, int]


@cache
def schemas() -> "dict[str, pa.Schema]":
    """Return the columns of the four tables, in the order of the documentation."""
    import pyarrow as pa

    moment = pa.timestamp("us", "UTC")
    post = {
        "id": pa.int64(),
        **dict.fromkeys(("uri", "instance", "status_id"), pa.string()),
        **dict.fromkeys(("created_at", "edited_at", "received_at", "event_at"), moment),
        **dict.fromkeys(
            ("username", "user_id", "lang", "visibility", "in_reply_to_id"), pa.string()
        ),
        **dict.fromkeys(("is_bot", "is_sensitive"), pa.bool_()),
        **dict.fromkeys(("favourites", "reblogs", "replies"), pa.int32()),
        **dict.fromkeys(("content_txt", "label_str"), pa.string()),
        "prob_pos": pa.float64(),
        **dict.fromkeys(("reason", "model_version"), pa.string()),
    }
    part = {"id": pa.int64(), "position": pa.int32()}
    return {
        "posts": pa.schema(post),
        "hashtags": pa.schema({**part, "hashtag": pa.string()}),
        "mentions": pa.schema({**part, "account": pa.string(), "url": pa.string()}),
        "links": pa.schema({**part, "url": pa.string()}),
    }


def export_posts(
    postgres_url: SecretStr, folder: Path, first: date, last: date
) -> Iterator[ExportedDay]:
    """Write the posts of each day from `first` to `last`, UTC days of `event_at`.

    Each table has a folder with one file per day: `posts/2026-11-20.parquet`. A file that exists is
    replaced, so posts that were deleted since are gone from it. All files of a day show the same
    moment.

    Args:
        postgres_url: A role that reads posts: masto_moderator, masto_writer or the owner.
        folder: Created if it is missing.
        first: First day.
        last: Last day.

    Yields:
        Each day after it was written.

    Raises:
        PostExportError: A file cannot be written, or the role may not read posts.
        ServiceUnavailableError: PostgreSQL does not answer.
        MissingTablesError: The tables are missing.
    """
    for offset in range((last - first).days + 1):
        day = first + timedelta(days=offset)
        try:
            with transaction(postgres_url, snapshot=True) as connection:
                rows = _write_day(connection, folder, day)
        except MissingRightsError as error:
            raise PostExportError(
                "the role in DATABASE_URL may not read posts; log in as masto_moderator"
            ) from error
        except OSError as error:
            raise PostExportError(
                f"{day}: cannot write {error.filename or folder} ({error.strerror}); check the"
                " folder's permissions and space; days before it are complete"
            ) from error
        yield ExportedDay(day, rows)


def _write_day(connection: Connection[Any], folder: Path, day: date) -> dict[str, int]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = dict.fromkeys(schemas(), 0)
    # All files are complete before the first takes its name.
    with ExitStack() as files, ExitStack() as open_writers:
        writers: dict[str, pq.ParquetWriter] = {}
        for name, schema in schemas().items():
            path = folder / name / f"{day}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            file = files.enter_context(atomic_file(path, "wb"))
            writer = pq.ParquetWriter(file, schema, compression="zstd")
            writers[name] = open_writers.enter_context(writer)
        for posts in _chunks(connection, day):
            for name, part in _tables(posts).items():
                writers[name].write_table(pa.Table.from_pylist(part, schemas()[name]))
                rows[name] += len(part)
    return rows


def _chunks(connection: Connection[Any], day: date) -> Iterator[list[dict[str, Any]]]:
    midnight = datetime.combine(day, time(), UTC)
    with connection.cursor("posts_to_export", row_factory=dict_row) as found:
        found.execute(_POSTS, (midnight, midnight + timedelta(days=1)))
        while posts := found.fetchmany(_POSTS_AT_ONCE):
            yield posts


def _tables(posts: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each table; columns that a table does not have are left out later."""
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in schemas()}
    for post in posts:
        links = links_of(post["content_html"] or "")
        tables["posts"].append(post)
        tables["hashtags"] += _numbered(post, ({"hashtag": tag} for tag in post["hashtags"]))
        tables["mentions"] += _numbered(post, map(vars, links.mentions))
        tables["links"] += _numbered(post, ({"url": url} for url in links.urls))
    return tables


def _numbered(post: dict[str, Any], parts: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return ({"id": post["id"], "position": position} | part for position, part in enumerate(parts))
