"""The one description of every table: columns, types, key, meaning.

What belongs here: what a table is. Migrations make the tables; this registry is what comments,
staging, Spark, Dagster's column metadata and the schema checks read, and a test compares both.
"""

from collections.abc import Mapping
from dataclasses import dataclass

SCHEMA = "masto"


@dataclass(frozen=True)
class Column:
    """`type` is PostgreSQL's name as `format_type` prints it."""

    name: str
    type: str
    comment: str
    nullable: bool = True
    generated: bool = False


@dataclass(frozen=True)
class Table:
    """A table, or a view (`is_view`), of the schema `masto`.

    `personal` names the columns that lead to a person: handles, words, and ids of single posts.
    The role `masto_reader` sees all the others. None, nobody has said so yet, hides all of them.
    """

    name: str
    comment: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    is_view: bool = False
    personal: tuple[str, ...] | None = None

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @property
    def stored_columns(self) -> tuple[Column, ...]:
        """The columns a writer gives; generated ones are PostgreSQL's to fill."""
        return tuple(column for column in self.columns if not column.generated)

    @property
    def readable_columns(self) -> tuple[str, ...]:
        """The columns that `masto_reader` may see."""
        if self.personal is None:
            return ()
        return tuple(name for name in self.column_names if name not in self.personal)


def _table(
    name: str,
    comment: str,
    key: tuple[str, ...],
    *columns: Column,
    is_view: bool = False,
    personal: tuple[str, ...] | None = None,
) -> Table:
    return Table(name, comment, key, columns, is_view, personal)


def _required(name: str, type_: str, comment: str) -> Column:
    return Column(name, type_, comment, nullable=False)


_TIME = "timestamp with time zone"
_LANGUAGE = "language as declared, `und` if none"
_AVERAGE = "mean length of `content_txt`, in characters"

TOOTS_RAW = _table(
    "toots_raw",
    "One row a public post: the newest version of each uri that was not deleted.",
    ("id",),
    _required("id", "bigint", "XXH64 of the uri's UTF-8 bytes, seed 42, as a signed number"),
    _required("created_at", _TIME, "when the author's server says it was posted; may be wrong"),
    Column("edited_at", _TIME, "last edit as its server says, null if never edited"),
    _required("received_at", _TIME, "when this version reached us"),
    _required("event_at", _TIME, "least(created_at, received_at + 2 min); what windows use"),
    _required("payload_hash", "bigint", "XXH64 of the message's bytes; the last tie-break"),
    _required("favourites", "integer", "favourites at the time of receipt"),
    _required("reblogs", "integer", "boosts at the time of receipt"),
    _required("replies", "integer", "replies at the time of receipt"),
    _required("is_bot", "boolean", "the account says it is automated"),
    _required("is_sensitive", "boolean", "marked sensitive or behind a content warning"),
    _required("instance", "text", "the server this version was read from"),
    _required("status_id", "text", "the post's id on that server; opaque"),
    _required("uri", "text", "the post's id on every server"),
    _required("username", "text", "user@domain, or its keyed hash"),
    Column("user_id", "text", "account id on `instance`; null where unknown"),
    _required("lang", "text", _LANGUAGE),
    Column("visibility", "text", "always `public` for posts that were read by us"),
    Column("in_reply_to_id", "text", "id on `instance` of the post answered, if any"),
    _required("hashtags", "text[]", "tags as declared, lower case, unique"),
    _required("content_txt", "text", "the post as plain text"),
    Column("content_html", "text", "the post as sent; null under pseudonyms"),
    personal=(
        "status_id",
        "uri",
        "username",
        "user_id",
        "in_reply_to_id",
        "content_txt",
        "content_html",
    ),
)

TOOT_METRICS_WINDOWED = _table(
    "toot_metrics_windowed",
    "Toots a minute and language; half open windows of `event_at`, UTC.",
    ("window_start", "lang"),
    _required("window_start", _TIME, "first instant of the minute, inclusive"),
    _required("window_end", _TIME, "end of the minute, exclusive"),
    _required("toots_count", "bigint", "posts in the window"),
    _required("total_length", "bigint", "characters of `content_txt` in the window"),
    _required("lang", "text", _LANGUAGE),
    Column("avg_length", "double precision", _AVERAGE, generated=True),
    personal=(),
)

USER_AVG_LENGTH_WINDOWED = _table(
    "user_avg_length_windowed",
    "Toots a minute and user; half open windows of `event_at`, UTC.",
    ("window_start", "username"),
    _required("window_start", _TIME, "first instant of the minute, inclusive"),
    _required("window_end", _TIME, "end of the minute, exclusive"),
    _required("toots_count", "bigint", "posts in the window"),
    _required("total_length", "bigint", "characters of `content_txt` in the window"),
    _required("username", "text", "user@domain, or its keyed hash"),
    Column("avg_length", "double precision", _AVERAGE, generated=True),
    personal=("username",),
)

BATCH_ACTIVE_USERS = _table(
    "batch_active_users",
    "Users with at least ACTIVITY_MIN_TOOTS toots.",
    ("username",),
    _required("username", "text", "user@domain, or its keyed hash"),
    _required("toots_count", "bigint", "posts of the user"),
    _required("avg_len", "double precision", _AVERAGE),
    personal=("username",),
)

BATCH_HASHTAG_BY_HOUR = _table(
    "batch_hashtag_by_hour",
    "Uses of a hashtag an hour of `event_at`.",
    ("hour", "hashtag"),
    _required("hour", _TIME, "start of the hour, UTC"),
    _required("hashtag", "text", "without #, lower case"),
    _required("toots_count", "bigint", "posts with the hashtag"),
    personal=(),
)

BATCH_TOP_HASHTAG = _table(
    "batch_top_hashtag",
    "The most used hashtag; all of them where several share rank 1.",
    ("hashtag",),
    _required("hashtag", "text", "without #, lower case"),
    _required("toots_count", "bigint", "posts with the hashtag"),
    _required("rank", "integer", "1; equal counts share it"),
    personal=(),
)

BATCH_TOOTS_PER_DAY = _table(
    "batch_toots_per_day",
    "Toots a day of `event_at`.",
    ("day",),
    _required("day", "date", "UTC"),
    _required("toots_count", "bigint", "posts of the day"),
    personal=(),
)

BATCH_AVG_LEN_PER_DAY = _table(
    "batch_avg_len_per_day",
    "Mean length of the toots of a day of `event_at`.",
    ("day",),
    _required("day", "date", "UTC"),
    _required("avg_len", "double precision", _AVERAGE),
    personal=(),
)

BATCH_TOOTS_BY_LANG_PER_DAY = _table(
    "batch_toots_by_lang_per_day",
    "Toots a day of `event_at` and language.",
    ("day", "lang"),
    _required("day", "date", "UTC"),
    _required("lang", "text", _LANGUAGE),
    _required("toots_count", "bigint", "posts of the day in the language"),
    personal=(),
)

# The batch tables.
BATCH = (
    BATCH_ACTIVE_USERS,
    BATCH_HASHTAG_BY_HOUR,
    BATCH_TOP_HASHTAG,
    BATCH_TOOTS_PER_DAY,
    BATCH_AVG_LEN_PER_DAY,
    BATCH_TOOTS_BY_LANG_PER_DAY,
)

TOOTS_SENTIMENT = _table(
    "toots_sentiment",
    "One row a toot, labelled or with the reason why not.",
    ("id",),
    _required("id", "bigint", "`toots_raw.id`"),
    _required("created_at", _TIME, "`toots_raw.created_at`"),
    _required("scored_at", _TIME, "when it was scored"),
    Column("prob_pos", "double precision", "probability of positive, 0 to 1"),
    Column("label_bin", "smallint", "1 if prob_pos >= .5, else 0"),
    _required("lang", "text", _LANGUAGE),
    Column("label_str", "text", "positive, negative or neutral; null without a ground"),
    Column("reason", "text", "why there is no label: unsupported_language, no_words, no_model"),
    Column("model_version", "text", "`sentiment_models.version`; null without a model"),
    _required("text", "text", "the text scored: `toots_raw.content_txt`"),
    personal=("text",),
)

_UNSEEN = "null where the server did not show the post"
TOOTS_ENGAGEMENT = _table(
    "toots_engagement",
    "How often a post was favourited, boosted and answered an hour and a day after it.",
    ("id", "due_hours"),
    _required("id", "bigint", "`toots_raw.id`"),
    _required("read_at", _TIME, "when the server was asked; may be long after it was due"),
    Column("favourites", "integer", f"favourites at `read_at`; {_UNSEEN}"),
    Column("reblogs", "integer", f"boosts at `read_at`; {_UNSEEN}"),
    Column("replies", "integer", f"replies at `read_at`; {_UNSEEN}"),
    _required("due_hours", "smallint", "hours after `event_at` from which it was due: 1 or 24"),
    personal=(),
)

V_SENTIMENT_DAILY = _table(
    "v_sentiment_daily",
    "Labels a day of `event_at`.",
    ("day",),
    Column("day", "date", "UTC"),
    Column("n_toosts", "bigint", "posts of the day (the spelling is the first version's)"),
    Column("n_pos", "bigint", "labelled positive"),
    Column("n_neg", "bigint", "labelled negative"),
    Column("n_neu", "bigint", "labelled neutral"),
    Column("avg_prob_pos", "double precision", "mean of prob_pos over the labelled posts"),
    Column("n_unscored", "bigint", "posts without a label"),
    is_view=True,
    personal=(),
)

SENTIMENT_TOTALS = _table(
    "sentiment_totals",
    "Toots a day of `event_at` and outcome: what `v_sentiment_daily` and charts are made from.",
    ("day", "outcome", "model_version"),
    _required("day", "date", "UTC"),
    _required("toots_count", "bigint", "posts of the day with the outcome"),
    _required("outcome", "text", "`label_str`, else `reason`; `not_scored` before a score"),
    _required("model_version", "text", "`toots_sentiment.model_version`; empty without a model"),
    _required("prob_sum", "numeric", "sum of `prob_pos`, to 15 digits each; 0 without a label"),
    personal=(),
)

KAFKA_OFFSETS = _table(
    "kafka_offsets",
    "The ledger: how far each partition is in the tables. The only progress that counts.",
    ("topic", "partition"),
    _required("topic", "text", "Kafka topic"),
    _required("partition", "integer", "partition of the topic"),
    _required("topic_id", "text", "the broker's id of the topic; another one is another topic"),
    _required("next_offset", "bigint", "the first offset that is not in the tables yet"),
    _required("updated_at", _TIME, "when it moved last"),
    personal=(),
)

TOOTS_DELETED = _table(
    "toots_deleted",
    "Tombstones: posts that must not come back, in whatever order messages arrive.",
    ("instance", "status_id"),
    _required("instance", "text", "the server that told of the delete"),
    _required("status_id", "text", "the post's id there"),
    _required("deleted_at", _TIME, "when the first delete reached us"),
    personal=("status_id",),
)

TOOT_ALIASES = _table(
    "toot_aliases",
    "Under which id each server knows a post.",
    ("instance", "status_id"),
    _required("instance", "text", "the server"),
    _required("status_id", "text", "the post's id there"),
    _required("id", "bigint", "`toots_raw.id` of the post's uri"),
    personal=("status_id",),
)

TOOTS_REJECTED = _table(
    "toots_rejected",
    "Dead letters: records that break the contract, byte for byte.",
    ("topic", "partition", "kafka_offset"),
    _required("topic", "text", "Kafka topic; name@id for one that was made anew since"),
    _required("partition", "integer", "partition of the topic"),
    _required("kafka_offset", "bigint", "offset of the record"),
    _required("reason", "text", "what is wrong, in a line"),
    Column("payload", "bytea", "the record's value; null for a record without one"),
    Column("message_key", "bytea", "the record's key"),
    _required("rejected_at", _TIME, "when it was rejected"),
    personal=("reason", "payload", "message_key"),
)

SENTIMENT_MODELS = _table(
    "sentiment_models",
    "Trained models; the champion is the one that scores.",
    ("version",),
    _required("version", "text", "hash of corpus, code version and parameters"),
    _required("trained_at", _TIME, "end of training"),
    _required("metrics", "jsonb", "what was measured on the held-out part, and parameters"),
    _required("corpus", "text", "what it was trained on"),
    _required("status", "text", "candidate, champion or retired"),
    _required("path", "text", "folder of the saved pipeline; complete before this row exists"),
    _required("status_reason", "text", "why it has this status"),
    Column("promoted_at", _TIME, "when it became champion; null if never, or rolled back"),
    personal=(),
)

INGEST_CURSORS = _table(
    "ingest_cursors",
    "Where the ingester starts again; moved only after Kafka's acknowledgement.",
    ("instance", "source"),
    _required("instance", "text", "the server"),
    _required("source", "text", "which of its timelines"),
    _required("last_acked_id", "text", "newest status id that Kafka has"),
    _required("updated_at", _TIME, "when it moved last"),
    Column("rules", "text", "consent, filters and pseudonyms of the run that moved it last"),
    personal=("last_acked_id",),
)

INGEST_SOURCES = _table(
    "ingest_sources",
    "What each source was last seen to do; the ingester tells it while it runs.",
    ("instance", "source"),
    _required("instance", "text", "the server"),
    _required("source", "text", "public, local, remote or hashtag:tag"),
    _required("state", "text", "connected, silent, disconnected, refused, paused or stopped"),
    Column("detail", "text", "why, in a line; null where all is well"),
    Column("last_event_at", _TIME, "last event of the stream; null before the first"),
    Column("last_post_at", _TIME, "last new post of the stream; null before the first"),
    Column("longest_pause_seconds", "double precision", "between two of its latest posts"),
    _required("told_at", _TIME, "when the ingester told this; old where it was killed"),
    personal=(),
)

STREAM_GAPS = _table(
    "stream_gaps",
    "Times without a stream, and how much of them came back.",
    ("instance", "source", "started_at"),
    _required("instance", "text", "the server"),
    _required("source", "text", "which of its timelines"),
    _required("started_at", _TIME, "last sign of life before the gap"),
    Column("ended_at", _TIME, "when the stream was back; null while open"),
    Column("from_id", "text", "last status id before what is missing; null where none is known"),
    Column("to_id", "text", "first status id after what is missing; null where none was told"),
    _required("reason", "text", "what ended the stream, and why something is missing"),
    _required("recovered_count", "bigint", "posts brought back by REST"),
    _required("status", "text", "open, recovered, partial or unrecoverable"),
    personal=("from_id", "to_id"),
)

WITHDRAWN = _table(
    "withdrawn",
    "Accounts and servers that have withdrawn: nothing of them is read or stored.",
    ("kind", "hash"),
    _required("kind", "text", "account or server"),
    _required("hash", "bytea", "keyed BLAKE2b of user@domain or domain (or its pseudonym)"),
    _required("key_fingerprint", "text", "which WITHDRAWN_KEY the hash was made with"),
    _required("withdrawn_at", _TIME, "when it was entered"),
    personal=("hash",),
)

DATA_VERSIONS = _table(
    "data_versions",
    "A counter a dataset: goes up in every transaction that changes its rows.",
    ("dataset",),
    _required("dataset", "text", "table that the counter is of"),
    _required("version", "bigint", "number of transactions that changed it"),
    _required("changed_at", _TIME, "when it changed last"),
    personal=(),
)

ASSET_PROGRESS = _table(
    "asset_progress",
    "Which version of the toots, and which model, each derived asset shows.",
    ("asset",),
    _required("asset", "text", "asset key"),
    _required("toots_version", "bigint", "`data_versions.version` of toots_raw it was made from"),
    Column("model_version", "text", "champion it was made with; null where none matters"),
    _required("updated_at", _TIME, "when it was made"),
    Column("parameters", "text", "settings it was made with; null where none matters"),
    personal=(),
)

TOOT_CHANGES = _table(
    "toot_changes",
    "Rows of toots_raw before and after each change, until every batch table has moved by them.",
    ("version", "toot_id", "sign"),
    _required("version", "bigint", "`data_versions.version` of toots_raw that the change made"),
    _required("toot_id", "bigint", "`toots_raw.id`"),
    _required("sign", "smallint", "-1: the row before the change; 1: the row after it"),
    _required("event_at", _TIME, "`toots_raw.event_at` of that row"),
    _required("length", "integer", "characters of `content_txt` of that row"),
    _required("lang", "text", _LANGUAGE),
    _required("username", "text", "user@domain, or its keyed hash"),
    _required("hashtags", "text[]", "tags of that row"),
    personal=("toot_id", "username"),
)

USER_TOTALS = _table(
    "user_totals",
    "Toots a user, from which `batch_active_users` is made.",
    ("username",),
    _required("username", "text", "user@domain, or its keyed hash"),
    _required("toots_count", "bigint", "posts of the user"),
    _required("total_length", "bigint", "characters of `content_txt` of all of them"),
    personal=("username",),
)

HASHTAG_TOTALS = _table(
    "hashtag_totals",
    "Toots a hashtag, from which `batch_top_hashtag` is made.",
    ("hashtag",),
    _required("hashtag", "text", "lower case, without #"),
    _required("toots_count", "bigint", "posts with the hashtag"),
    personal=(),
)

DAY_TOTALS = _table(
    "day_totals",
    "Toots a day of `event_at`, from which `batch_avg_len_per_day` is made.",
    ("day",),
    _required("day", "date", "UTC"),
    _required("toots_count", "bigint", "posts of the day"),
    _required("total_length", "bigint", "characters of `content_txt` of all of them"),
    personal=(),
)

TABLES: Mapping[str, Table] = {
    table.name: table
    for table in (
        TOOTS_RAW,
        TOOT_METRICS_WINDOWED,
        USER_AVG_LENGTH_WINDOWED,
        *BATCH,
        TOOTS_SENTIMENT,
        V_SENTIMENT_DAILY,
        TOOTS_ENGAGEMENT,
        KAFKA_OFFSETS,
        TOOTS_DELETED,
        TOOT_ALIASES,
        TOOTS_REJECTED,
        SENTIMENT_MODELS,
        INGEST_CURSORS,
        INGEST_SOURCES,
        STREAM_GAPS,
        WITHDRAWN,
        DATA_VERSIONS,
        ASSET_PROGRESS,
        TOOT_CHANGES,
        USER_TOTALS,
        HASHTAG_TOTALS,
        DAY_TOTALS,
        SENTIMENT_TOTALS,
    )
}
