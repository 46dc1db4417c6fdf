"""The table catalog: columns, types, key and meaning of every table.

What belongs here: what a table is. Migrations create the tables. Comments, staging, Spark,
Dagster's column metadata and the schema checks read this catalog. A test compares it with the
database.
"""

from collections.abc import Mapping
from dataclasses import dataclass

SCHEMA = "masto"


@dataclass(frozen=True)
class Column:
    """A column; `type` is PostgreSQL's name as `format_type` prints it."""

    name: str
    type: str
    comment: str
    nullable: bool = True
    generated: bool = False


@dataclass(frozen=True)
class Table:
    """A table, or a view (`is_view`), of the schema `masto`.

    `personal` names the columns that lead to a person: handles, texts, and ids of single posts.
    The role `masto_reader` sees all the others. None means undecided and hides all of them.
    `is_moderated` hides the whole table from `masto_reader` and shows it to `masto_moderator`:
    rows of single posts lead to a person by their times alone. `moderator_writes` lets that role
    also write its rows.
    """

    name: str
    comment: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    is_view: bool = False
    personal: tuple[str, ...] | None = None
    is_moderated: bool = False
    moderator_writes: bool = False

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of all columns, in order."""
        return tuple(column.name for column in self.columns)

    @property
    def stored_columns(self) -> tuple[Column, ...]:
        """The columns that a writer provides; PostgreSQL fills the generated ones."""
        return tuple(column for column in self.columns if not column.generated)

    @property
    def readable_columns(self) -> tuple[str, ...]:
        """The columns that `masto_reader` may see."""
        if self.personal is None or self.is_moderated:
            return ()
        return tuple(name for name in self.column_names if name not in self.personal)


def _table(
    name: str,
    comment: str,
    key: tuple[str, ...],
    *columns: Column,
    is_view: bool = False,
    personal: tuple[str, ...] | None = None,
    is_moderated: bool = False,
    moderator_writes: bool = False,
) -> Table:
    return Table(name, comment, key, columns, is_view, personal, is_moderated, moderator_writes)


def _required(name: str, type_: str, comment: str) -> Column:
    return Column(name, type_, comment, nullable=False)


_TIME = "timestamp with time zone"
_LANGUAGE = "language as declared, `und` if none"
_AVERAGE = "mean length of `content_txt`, in characters"

TOOTS_RAW = _table(
    "toots_raw",
    "One row per public post: the newest version of each uri that was not deleted.",
    ("id",),
    _required("id", "bigint", "XXH64 of the uri's UTF-8 bytes, seed 42, as a signed number"),
    _required(
        "created_at", _TIME, "time of posting as claimed by the author's server; may be wrong"
    ),
    Column("edited_at", _TIME, "last edit as claimed by the author's server; null if never edited"),
    _required("received_at", _TIME, "when this version was received"),
    _required(
        "event_at", _TIME, "least(created_at, received_at + 2 min); used by windows, hours and days"
    ),
    _required(
        "payload_hash",
        "bigint",
        "XXH64 of the message's bytes; the last tie-breaker between versions",
    ),
    _required("favourites", "integer", "favourites at the time of receipt"),
    _required("reblogs", "integer", "boosts at the time of receipt"),
    _required("replies", "integer", "replies at the time of receipt"),
    _required("is_bot", "boolean", "whether the account is declared as automated"),
    _required(
        "is_sensitive", "boolean", "whether the post is marked sensitive or has a content warning"
    ),
    _required("instance", "text", "server that this version was read from"),
    _required("status_id", "text", "id of the post on `instance`; opaque text"),
    _required("uri", "text", "id of the post, the same on every server"),
    _required("username", "text", "user@domain, or its keyed hash"),
    Column("user_id", "text", "account id on `instance`; null if unknown"),
    _required("lang", "text", _LANGUAGE),
    Column("visibility", "text", "always `public` for posts that the ingester read"),
    Column(
        "in_reply_to_id", "text", "id on `instance` of the post that this one answers; null if none"
    ),
    _required("hashtags", "text[]", "hashtags as declared, lower case, unique"),
    _required("content_txt", "text", "the post as plain text"),
    Column(
        "content_html",
        "text",
        "HTML as the server sent it, not cleaned, so never to be shown; null under pseudonyms",
    ),
    _required(
        "is_imported", "boolean", "whether this version is of a recording, not read from the server"
    ),
    personal=(
        "id",
        "status_id",
        "uri",
        "username",
        "user_id",
        "in_reply_to_id",
        "content_txt",
        "content_html",
    ),
    is_moderated=True,
)

TOOT_METRICS_WINDOWED = _table(
    "toot_metrics_windowed",
    "Posts per minute of `event_at` and language; half-open windows, UTC.",
    ("window_start", "lang"),
    _required("window_start", _TIME, "start of the minute, inclusive"),
    _required("window_end", _TIME, "end of the minute, exclusive"),
    _required("toots_count", "bigint", "posts in the window"),
    _required(
        "total_length", "bigint", "total length of `content_txt` in the window, in characters"
    ),
    _required("lang", "text", _LANGUAGE),
    Column("avg_length", "double precision", _AVERAGE, generated=True),
    personal=(),
)

USER_AVG_LENGTH_WINDOWED = _table(
    "user_avg_length_windowed",
    "Posts per minute of `event_at` and user; half-open windows, UTC.",
    ("window_start", "username"),
    _required("window_start", _TIME, "start of the minute, inclusive"),
    _required("window_end", _TIME, "end of the minute, exclusive"),
    _required("toots_count", "bigint", "posts in the window"),
    _required(
        "total_length", "bigint", "total length of `content_txt` in the window, in characters"
    ),
    _required("username", "text", "user@domain, or its keyed hash"),
    Column("avg_length", "double precision", _AVERAGE, generated=True),
    personal=("username",),
)

BATCH_ACTIVE_USERS = _table(
    "batch_active_users",
    "One row per user with at least ACTIVITY_MIN_TOOTS posts.",
    ("username",),
    Column("username", "text", "user@domain, or its keyed hash"),
    Column("toots_count", "bigint", "posts of the user"),
    Column("avg_len", "double precision", _AVERAGE),
    personal=("username",),
    is_view=True,
)

BATCH_HASHTAG_BY_HOUR = _table(
    "batch_hashtag_by_hour",
    "Posts per hour of `event_at` and hashtag.",
    ("hour", "hashtag"),
    _required("hour", _TIME, "start of the hour, UTC"),
    _required("hashtag", "text", "without #, lower case"),
    _required("toots_count", "bigint", "posts with the hashtag"),
    personal=(),
)

BATCH_TOP_HASHTAG = _table(
    "batch_top_hashtag",
    "The most used hashtag; several rows if they share rank 1.",
    ("hashtag",),
    Column("hashtag", "text", "without #, lower case"),
    Column("toots_count", "bigint", "posts with the hashtag"),
    Column("rank", "integer", "always 1; equal counts share it"),
    personal=(),
    is_view=True,
)

BATCH_TOOTS_PER_DAY = _table(
    "batch_toots_per_day",
    "Posts per day of `event_at`.",
    ("day",),
    _required("day", "date", "UTC"),
    _required("toots_count", "bigint", "posts of the day"),
    personal=(),
)

BATCH_AVG_LEN_PER_DAY = _table(
    "batch_avg_len_per_day",
    "Mean length of the posts per day of `event_at`.",
    ("day",),
    Column("day", "date", "UTC"),
    Column("avg_len", "double precision", _AVERAGE),
    personal=(),
    is_view=True,
)

BATCH_TOOTS_BY_LANG_PER_DAY = _table(
    "batch_toots_by_lang_per_day",
    "Posts per day of `event_at` and language.",
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
    "One row per post: its sentiment, or the reason why it has none.",
    ("id",),
    _required("id", "bigint", "`toots_raw.id`"),
    _required("created_at", _TIME, "`toots_raw.created_at`"),
    _required("scored_at", _TIME, "when it was scored"),
    Column(
        "prob_pos",
        "double precision",
        "probability that the post is positive, 0 to 1; null if not scored (see `reason`)",
    ),
    Column(
        "label_bin", "smallint", "1 if prob_pos >= 0.5, else 0; null if not scored (see `reason`)"
    ),
    _required("lang", "text", _LANGUAGE),
    Column("label_str", "text", "positive, negative or neutral; null if not scored (see `reason`)"),
    Column(
        "reason",
        "text",
        "why the post was not scored: unsupported_language, no_words or no_model; null if scored",
    ),
    Column("model_version", "text", "`sentiment_models.version`; null if no model existed"),
    _required("text", "text", "the scored text: `toots_raw.content_txt`"),
    personal=("id", "text"),
    is_moderated=True,
)

_UNSEEN = "null if the server did not return the post"
TOOTS_ENGAGEMENT = _table(
    "toots_engagement",
    "Favourites, boosts and replies of a post one hour and one day after it was posted.",
    ("id", "due_hours"),
    _required("id", "bigint", "`toots_raw.id`"),
    _required("read_at", _TIME, "when the server was asked; may be long after the reading was due"),
    Column("favourites", "integer", f"favourites at `read_at`; {_UNSEEN}"),
    Column("reblogs", "integer", f"boosts at `read_at`; {_UNSEEN}"),
    Column("replies", "integer", f"replies at `read_at`; {_UNSEEN}"),
    _required(
        "due_hours", "smallint", "hours after `event_at` at which the reading is due: 1 or 24"
    ),
    personal=("id",),
    is_moderated=True,
)

V_SENTIMENT_DAILY = _table(
    "v_sentiment_daily",
    "Sentiment labels per day of `event_at`.",
    ("day",),
    Column("day", "date", "UTC"),
    Column("n_toosts", "bigint", "posts of the day (spelled as in the first version)"),
    Column("n_pos", "bigint", "posts labelled positive"),
    Column("n_neg", "bigint", "posts labelled negative"),
    Column("n_neu", "bigint", "posts labelled neutral"),
    Column(
        "avg_prob_pos",
        "double precision",
        "mean of prob_pos over the labelled posts; null if there are none",
    ),
    Column("n_unscored", "bigint", "posts without a label"),
    is_view=True,
    personal=(),
)

V_POST_LABELS = _table(
    "v_post_labels",
    "One row per scored post, without anything that leads to the post.",
    ("post_key",),
    Column("post_key", "text", "keyed hash of `toots_raw.id`; the same on every read"),
    Column("day", "date", "day of `event_at`, UTC"),
    Column("lang", "text", _LANGUAGE),
    Column("label_str", "text", "`toots_sentiment.label_str`"),
    Column("reason", "text", "`toots_sentiment.reason`"),
    Column("model_version", "text", "`toots_sentiment.model_version`"),
    is_view=True,
    personal=(),
)

HANDLE_KEYS = _table(
    "handle_keys",
    "Fingerprints of every MASTODON_HANDLE_KEY under which posts were read.",
    ("key_fingerprint",),
    _required("key_fingerprint", "text", "fingerprint of a MASTODON_HANDLE_KEY"),
    _required("first_used_at", _TIME, "when an ingester first used the key"),
    personal=(),
)

DATABASE_SECRETS = _table(
    "database_secrets",
    "Random secrets of this database, made once.",
    ("name",),
    _required("name", "text", "name of the secret"),
    _required("secret", "text", "the secret"),
    personal=("secret",),
)

SENTIMENT_TOTALS = _table(
    "sentiment_totals",
    "Posts per day of `event_at`, outcome and model; source of `v_sentiment_daily` and charts.",
    ("day", "outcome", "model_version"),
    _required("day", "date", "UTC"),
    _required("toots_count", "bigint", "posts of the day with the outcome"),
    _required(
        "outcome",
        "text",
        "`label_str`, or `reason` if there is no label; `not_scored` before scoring",
    ),
    _required("model_version", "text", "`toots_sentiment.model_version`; empty if there is none"),
    _required("prob_sum", "numeric", "sum of `prob_pos`, 15 digits each; 0 if there is no label"),
    personal=(),
)

KAFKA_OFFSETS = _table(
    "kafka_offsets",
    "The ledger: how far each partition is in the tables. Every start reads from here.",
    ("topic", "partition"),
    _required("topic", "text", "Kafka topic"),
    _required("partition", "integer", "partition of the topic"),
    _required(
        "topic_id", "text", "the broker's id of the topic; changes if the topic is created again"
    ),
    _required("next_offset", "bigint", "first offset that is not in the tables yet"),
    _required("updated_at", _TIME, "time of the last change"),
    personal=(),
)

TOOTS_DELETED = _table(
    "toots_deleted",
    "Tombstones: deleted posts, which stay out in whatever order messages arrive.",
    ("instance", "status_id"),
    _required("instance", "text", "server that reported the delete"),
    _required("status_id", "text", "id of the post on `instance`"),
    _required("deleted_at", _TIME, "when the latest delete was received"),
    personal=("status_id",),
)

TOOT_ALIASES = _table(
    "toot_aliases",
    "The ids under which servers know a post: one row per server and id.",
    ("instance", "status_id"),
    _required("instance", "text", "name of the server"),
    _required("status_id", "text", "id of the post on `instance`"),
    _required("id", "bigint", "`toots_raw.id` of the post"),
    personal=("status_id", "id"),
)

SERVER_NAMES = _table(
    "server_names",
    "Names of the servers that were read: their own domains, and the hosts of their pages.",
    ("name",),
    _required("name", "text", "domain or host, in lower case"),
    _required("instance", "text", "name of the server in all other tables"),
    _required("has_ids", "boolean", "whether uris of this host end in the server's id of the post"),
    personal=(),
)

HOME_IDS = _table(
    "home_ids",
    "The ids at their own servers of posts that were read from others, by their uris.",
    ("instance", "status_id", "id"),
    _required("id", "bigint", "`toots_raw.id` of the post"),
    _required("instance", "text", "home of the post: the server in its uri"),
    _required("status_id", "text", "id of the post on `instance`"),
    personal=("id", "status_id"),
)

HOME_VERSIONS = _table(
    "home_versions",
    "The document of a post that its home sent last, if another version is the row.",
    ("id",),
    *(column for column in TOOTS_RAW.columns if column.name not in ("event_at", "is_imported")),
    personal=TOOTS_RAW.personal,
    is_moderated=True,
)

HOME_QUESTIONS = _table(
    "home_questions",
    "Posts that another server deleted: their homes are asked whether they still exist.",
    ("id",),
    _required("id", "bigint", "`toots_raw.id` of the post"),
    _required("instance", "text", "home of the post"),
    _required("status_id", "text", "id of the post on `instance`"),
    _required("since", _TIME, "when the post was removed"),
    Column("asked_at", _TIME, "when home was asked last; null if it was not yet"),
    personal=("id", "status_id"),
)

ACCOUNT_REFUSALS = _table(
    "account_refusals",
    "Accounts that refuse at their own servers: their posts are not read from others either.",
    ("hash",),
    _required("hash", "bytea", "keyed BLAKE2b of user@domain"),
    _required("instance", "text", "the account's server, which was read"),
    _required("refused_at", _TIME, "when the refusal was first seen"),
    personal=("hash",),
)

TOOTS_REJECTED = _table(
    "toots_rejected",
    "Dead letters: Kafka records that break the message contract, byte for byte.",
    ("topic", "partition", "kafka_offset"),
    _required("topic", "text", "Kafka topic; `name@id` if the topic was created again since"),
    _required("partition", "integer", "partition of the topic"),
    _required("kafka_offset", "bigint", "offset of the record"),
    _required("reason", "text", "what is wrong, in one line"),
    Column("payload", "bytea", "value of the record; null if it has none"),
    Column("message_key", "bytea", "key of the record; null if it has none"),
    _required("rejected_at", _TIME, "when it was rejected"),
    personal=("reason", "payload", "message_key"),
)

SENTIMENT_MODELS = _table(
    "sentiment_models",
    "Trained models; the champion is the one that scores posts.",
    ("version",),
    _required("version", "text", "hash of corpus, model revision and parameters"),
    _required("trained_at", _TIME, "end of training"),
    _required("metrics", "jsonb", "measurements on the held-out part, and parameters"),
    _required("corpus", "text", "training corpus"),
    _required("status", "text", "candidate, champion or retired"),
    _required("path", "text", "folder of the saved pipeline; complete before this row is written"),
    _required("status_reason", "text", "why it has this status"),
    Column("promoted_at", _TIME, "when it became champion; null if never or if rolled back"),
    personal=(),
)

INGEST_CURSORS = _table(
    "ingest_cursors",
    "Where the ingester resumes; moved only after Kafka has acknowledged.",
    ("instance", "source"),
    _required("instance", "text", "name of the server"),
    _required("source", "text", "timeline of the server"),
    _required("last_acked_id", "text", "newest status id that Kafka has acknowledged"),
    _required("updated_at", _TIME, "time of the last change"),
    Column("rules", "text", "consent, filter and pseudonym settings of the run that moved it last"),
    personal=("last_acked_id",),
)

INGEST_SOURCES = _table(
    "ingest_sources",
    "Latest state of each source, reported by the running ingester.",
    ("instance", "source"),
    _required("instance", "text", "name of the server"),
    _required("source", "text", "public, local, remote or hashtag:tag"),
    _required("state", "text", "connected, silent, disconnected, refused, paused or stopped"),
    Column("detail", "text", "reason of the state, in one line; null if all is well"),
    Column("last_event_at", _TIME, "last event of the stream; null before the first"),
    Column("last_post_at", _TIME, "last new post of the stream; null before the first"),
    Column(
        "longest_pause_seconds",
        "double precision",
        "longest pause between two of the latest posts, in seconds",
    ),
    _required("told_at", _TIME, "time of this report; stale if the ingester was killed"),
    Column("address", "text", "host of the server in the settings; null before it was recorded"),
    personal=(),
)

SUSPICIOUS_SOURCES = _table(
    "suspicious_sources",
    "Servers whose conclusions wait for a person: many posts gone at once, or another server.",
    ("instance",),
    _required("instance", "text", "name of the server"),
    _required("reason", "text", "what was found, in one line"),
    _required("since", _TIME, "when it was found first"),
    _required("status_ids", "text[]", "ids on `instance` of posts that wait for their removal"),
    Column("accepted_until", _TIME, "until when removals pass; null if nobody accepted them"),
    personal=("status_ids",),
)

STREAM_GAPS = _table(
    "stream_gaps",
    "Gaps: times without a stream, and how many posts were recovered.",
    ("instance", "source", "started_at"),
    _required("instance", "text", "name of the server"),
    _required("source", "text", "timeline of the server"),
    _required("started_at", _TIME, "last sign of life before the gap"),
    Column("ended_at", _TIME, "when the stream was back; null while the gap is open"),
    Column("from_id", "text", "last status id before the gap; null if unknown"),
    Column("to_id", "text", "first status id after the gap; null if unknown"),
    _required("reason", "text", "why the stream ended, and why posts are missing"),
    _required("recovered_count", "bigint", "posts recovered by REST"),
    _required("status", "text", "open, recovered, partial or unrecoverable"),
    personal=("from_id", "to_id"),
)

WITHDRAWN = _table(
    "withdrawn",
    "Suppression list: accounts and servers whose posts are neither read nor stored.",
    ("kind", "hash"),
    _required("kind", "text", "account or server"),
    _required("hash", "bytea", "keyed BLAKE2b of user@domain or domain, or of its pseudonym"),
    _required("key_fingerprint", "text", "fingerprint of the WITHDRAWN_KEY that made the hash"),
    _required("withdrawn_at", _TIME, "when the entry was added"),
    personal=("hash",),
)

DATA_VERSIONS = _table(
    "data_versions",
    "One counter per dataset, increased by every transaction that changes its rows.",
    ("dataset",),
    _required("dataset", "text", "name of the table"),
    _required("version", "bigint", "number of transactions that changed the dataset"),
    _required("changed_at", _TIME, "time of the last change"),
    personal=(),
)

ASSET_PROGRESS = _table(
    "asset_progress",
    "Watermarks: the version of the posts and the model that each derived asset shows.",
    ("asset",),
    _required("asset", "text", "asset key"),
    _required(
        "toots_version", "bigint", "`data_versions.version` of toots_raw that the asset shows"
    ),
    Column(
        "model_version", "text", "champion that the asset was made with; null if it uses no model"
    ),
    _required("updated_at", _TIME, "time of the last change"),
    Column(
        "parameters",
        "text",
        "settings that the asset was made with, or hashes of what a file was made of and is; null"
        " if there are none",
    ),
    personal=(),
)

RETENTION_HORIZONS = _table(
    "retention_horizons",
    "The first days that retention keeps: older rows are removed and not stored again.",
    ("dataset",),
    _required("dataset", "text", "posts or windows"),
    _required("first_day", "date", "UTC; 0001-01-01 if all are kept"),
    _required("moved_at", _TIME, "time of the last change"),
    personal=(),
)

TOOTS_UNSCORED = _table(
    "toots_unscored",
    "Posts that wait for a score.",
    ("id",),
    _required("id", "bigint", "`toots_raw.id`"),
    personal=("id",),
    is_moderated=True,
)

USER_TOTALS = _table(
    "user_totals",
    "Posts per user; source of `batch_active_users`.",
    ("username",),
    _required("username", "text", "user@domain, or its keyed hash"),
    _required("toots_count", "bigint", "posts of the user"),
    _required("total_length", "bigint", "total length of their `content_txt`, in characters"),
    personal=("username",),
)

HASHTAG_TOTALS = _table(
    "hashtag_totals",
    "Posts per hashtag; source of `batch_top_hashtag`.",
    ("hashtag",),
    _required("hashtag", "text", "lower case, without #"),
    _required("toots_count", "bigint", "posts with the hashtag"),
    personal=(),
)

DAY_TOTALS = _table(
    "day_totals",
    "Posts per day of `event_at`; source of `batch_avg_len_per_day`.",
    ("day",),
    _required("day", "date", "UTC"),
    _required("toots_count", "bigint", "posts of the day"),
    _required("total_length", "bigint", "total length of their `content_txt`, in characters"),
    _required("toots_version", "bigint", "`data_versions.version` of the day's last change"),
    personal=(),
)

_HOUR = "start of the hour of `toots_raw.event_at`, UTC"
_SERVER = "`toots_raw.instance`: the server that the posts were read from"
_LATENESS = (
    "`toots_raw.received_at` after posting or the last edit (the later of `created_at` and"
    " `edited_at`)"
)
_RECEIVED = (
    ("received_1m", f"posts received up to 1 minute, {_LATENESS}; also those from the future"),
    ("received_10m", "posts received more than 1 and up to 10 minutes late"),
    ("received_1h", "posts received more than 10 minutes and up to 1 hour late"),
    ("received_1d", "posts received more than 1 hour and up to 1 day late"),
    ("received_later", "posts received more than 1 day late, by a backfill or an import"),
)
_LABELLED = "`toots_sentiment.label_str`"

CHANGED_HOURS = _table(
    "changed_hours",
    "Hours whose posts, scores or deletes changed since the hourly tables were refreshed.",
    ("hour",),
    _required("hour", _TIME, "start of the hour of `toots_raw.event_at` or of a delete, UTC"),
    _required("changes", "bigint", "transactions that changed the hour since the last refresh"),
    personal=(),
)

HOURLY_ACTIVITY = _table(
    "hourly_activity",
    "Posts, accounts and lateness per hour of `event_at`, server and language.",
    ("hour", "instance", "lang"),
    _required("hour", _TIME, _HOUR),
    _required("toots_count", "bigint", "rows of `toots_raw`"),
    _required(
        "accounts_count",
        "bigint",
        "different `toots_raw.username`; in a sum over languages an account counts in each",
    ),
    *(_required(name, "bigint", comment) for name, comment in _RECEIVED),
    _required("instance", "text", _SERVER),
    _required("lang", "text", _LANGUAGE),
    personal=(),
)

HOURLY_SENTIMENT = _table(
    "hourly_sentiment",
    "Posts per hour of `event_at`, server, language and outcome of scoring.",
    ("hour", "instance", "lang", "outcome"),
    _required("hour", _TIME, _HOUR),
    _required("toots_count", "bigint", "rows of `toots_raw` with the outcome"),
    _required("instance", "text", _SERVER),
    _required("lang", "text", _LANGUAGE),
    _required(
        "outcome",
        "text",
        f"{_LABELLED}, or `toots_sentiment.reason` if there is no label; `not_scored` before"
        " scoring",
    ),
    _required(
        "total_prob_pos", "numeric", "sum of `toots_sentiment.prob_pos`; 0 if there is no label"
    ),
    # An hour with one post would give its label away.
    personal=("outcome", "total_prob_pos"),
    is_moderated=True,
)

HOURLY_HASHTAGS = _table(
    "hourly_hashtags",
    "Posts, accounts and labels per hour of `event_at`, hashtag, server and language.",
    ("hour", "hashtag", "instance", "lang"),
    _required("hour", _TIME, _HOUR),
    _required("toots_count", "bigint", "rows of `toots_raw` with the hashtag"),
    _required(
        "accounts_count",
        "bigint",
        "different `toots_raw.username`; see `hourly_hashtag_accounts` for all servers and"
        " languages",
    ),
    _required("n_pos", "bigint", f"posts whose {_LABELLED} is positive"),
    _required("n_neu", "bigint", f"posts whose {_LABELLED} is neutral"),
    _required("n_neg", "bigint", f"posts whose {_LABELLED} is negative"),
    _required("hashtag", "text", "of `toots_raw.hashtags`: without #, lower case"),
    _required("instance", "text", _SERVER),
    _required("lang", "text", _LANGUAGE),
    # An hour with one post would give its label away.
    personal=("n_pos", "n_neu", "n_neg"),
)

HOURLY_HASHTAG_ACCOUNTS = _table(
    "hourly_hashtag_accounts",
    "Accounts per hour of `event_at` and hashtag, over all servers and languages.",
    ("hour", "hashtag"),
    _required("hour", _TIME, _HOUR),
    _required("accounts_count", "bigint", "different `toots_raw.username`"),
    _required("hashtag", "text", "of `toots_raw.hashtags`: without #, lower case"),
    personal=(),
)

HOURLY_DELETES = _table(
    "hourly_deletes",
    "Deletes per hour and server. Neither Mastodon nor the messages say who deleted a post.",
    ("hour", "instance"),
    _required("hour", _TIME, "start of the hour of `toots_deleted.deleted_at`, UTC"),
    _required("deletes_count", "bigint", "rows of `toots_deleted`"),
    _required(
        "stored_count", "bigint", "those of posts that had been read: in `toot_aliases` by their id"
    ),
    _required("instance", "text", "`toots_deleted.instance`: the server that reported the delete"),
    personal=(),
)

# The tables that the refresh computes for the changed hours.
HOURLY = (
    HOURLY_ACTIVITY,
    HOURLY_SENTIMENT,
    HOURLY_HASHTAGS,
    HOURLY_HASHTAG_ACCOUNTS,
    HOURLY_DELETES,
)

_DAY = "day of `hourly_{}.hour`, UTC"
_DAILY = "sum of `hourly_{}.{}`"

DAILY_SENTIMENT = _table(
    "daily_sentiment",
    "Sums of `hourly_sentiment` per day; source of `v_sentiment_by_language`.",
    ("day", "instance", "lang", "outcome"),
    _required("day", "date", _DAY.format("sentiment")),
    _required("toots_count", "bigint", _DAILY.format("sentiment", "toots_count")),
    _required("instance", "text", _SERVER),
    _required("lang", "text", _LANGUAGE),
    _required("outcome", "text", "`hourly_sentiment.outcome`"),
    _required("total_prob_pos", "numeric", _DAILY.format("sentiment", "total_prob_pos")),
    # A day with one post would give its label away.
    personal=("outcome", "total_prob_pos"),
    is_moderated=True,
)

DAILY_HASHTAGS = _table(
    "daily_hashtags",
    "Sums of `hourly_hashtags` per day, over all servers; source of `v_sentiment_by_hashtag`.",
    ("hashtag", "day", "lang"),
    _required("day", "date", _DAY.format("hashtags")),
    _required("toots_count", "bigint", _DAILY.format("hashtags", "toots_count")),
    _required("n_pos", "bigint", _DAILY.format("hashtags", "n_pos")),
    _required("n_neu", "bigint", _DAILY.format("hashtags", "n_neu")),
    _required("n_neg", "bigint", _DAILY.format("hashtags", "n_neg")),
    _required("hashtag", "text", "`hourly_hashtags.hashtag`"),
    _required("lang", "text", _LANGUAGE),
    # A day with one post would give its label away.
    personal=("n_pos", "n_neu", "n_neg"),
)

# The sums of hourly tables that change with them.
DAILY = (DAILY_SENTIMENT, DAILY_HASHTAGS)

V_HASHTAG_TRENDS = _table(
    "v_hashtag_trends",
    "Hashtags of the newest complete hour that more accounts use than usual.",
    ("hashtag",),
    Column("hashtag", "text", "`hourly_hashtag_accounts.hashtag`"),
    Column(
        "hour", _TIME, "newest hour of `hourly_activity` before the running one; one for all rows"
    ),
    Column(
        "accounts",
        "bigint",
        "`hourly_hashtag_accounts.accounts_count` of the hour, at least 3: accounts, not posts",
    ),
    Column(
        "usual_accounts",
        "double precision",
        "mean of `accounts_count` in the same hour of `days_compared` earlier days; null if none",
    ),
    Column(
        "days_compared",
        "integer",
        "those of the 14 days before that have any post in the same hour",
    ),
    Column("ratio", "double precision", "accounts / usual_accounts; null if that is 0 or null"),
    Column(
        "score",
        "double precision",
        "(accounts - usual_accounts) / sqrt(usual_accounts + 1), above 0; order by it, descending",
    ),
    is_view=True,
    personal=(),
)

V_ACTIVITY_BY_WEEKDAY = _table(
    "v_activity_by_weekday",
    "Posts per hour of the week, UTC, without the running hour.",
    ("weekday", "hour_of_day"),
    Column("weekday", "integer", "ISO: 1 is Monday, 7 is Sunday; UTC"),
    Column("hour_of_day", "integer", "0 to 23, UTC"),
    Column("toots_count", "bigint", "sum of `hourly_activity.toots_count`"),
    Column(
        "hours_count",
        "bigint",
        "hours summed; days without any post are not counted: nothing was read",
    ),
    Column("mean_toots", "double precision", "toots_count / hours_count"),
    is_view=True,
    personal=(),
)

_N_UNSCORED = "posts without a label"

V_SENTIMENT_BY_LANGUAGE = _table(
    "v_sentiment_by_language",
    "Sentiment labels per day of `event_at`, server and language; from `hourly_sentiment`.",
    ("day", "instance", "lang"),
    Column("day", "date", _DAY.format("sentiment")),
    Column("instance", "text", _SERVER),
    Column("lang", "text", _LANGUAGE),
    Column("n_toots", "bigint", "sum of `toots_count`: all posts, labelled or not"),
    Column("n_pos", "bigint", "posts whose outcome is positive"),
    Column("n_neu", "bigint", "posts whose outcome is neutral"),
    Column("n_neg", "bigint", "posts whose outcome is negative"),
    Column("n_unscored", "bigint", _N_UNSCORED),
    Column(
        "avg_prob_pos",
        "double precision",
        "`total_prob_pos` divided by the labelled posts; null if there are none",
    ),
    is_view=True,
    personal=(),
)

V_SENTIMENT_BY_HASHTAG = _table(
    "v_sentiment_by_hashtag",
    "Sentiment labels per day of `event_at`, hashtag and language, if at least 5 posts have one.",
    ("day", "hashtag", "lang"),
    Column("day", "date", _DAY.format("hashtags")),
    Column("hashtag", "text", "`hourly_hashtags.hashtag`"),
    Column("lang", "text", _LANGUAGE),
    Column("n_toots", "bigint", "sum of `toots_count`: all posts, labelled or not"),
    Column("n_pos", "bigint", "sum of `hourly_hashtags.n_pos`"),
    Column("n_neu", "bigint", "sum of `hourly_hashtags.n_neu`"),
    Column("n_neg", "bigint", "sum of `hourly_hashtags.n_neg`"),
    Column("n_unscored", "bigint", _N_UNSCORED),
    is_view=True,
    personal=(),
)

V_SERVERS = _table(
    "v_servers",
    "Posts, accounts and deletes per day and server.",
    ("day", "instance"),
    Column("day", "date", "day of `hourly_activity.hour` or `hourly_deletes.hour`, UTC"),
    Column("instance", "text", "server that posts or deletes were read from"),
    Column("toots_count", "bigint", "sum of `hourly_activity.toots_count`"),
    Column(
        "accounts_per_hour",
        "double precision",
        "mean of `hourly_activity.accounts_count` per hour with posts; an account counts once per"
        " language; null without posts",
    ),
    Column("deletes_count", "bigint", "sum of `hourly_deletes.deletes_count`: all deletes"),
    Column(
        "deletes_of_stored",
        "bigint",
        "sum of `hourly_deletes.stored_count`: deletes of posts that had been read, whenever they"
        " were posted",
    ),
    Column(
        "share_deleted",
        "double precision",
        "deletes_of_stored / (toots_count + deletes_of_stored); null if both are 0",
    ),
    is_view=True,
    personal=(),
)

V_LATENESS = _table(
    "v_lateness",
    "Posts per day of `event_at` and server by how late they were received.",
    ("day", "instance"),
    Column("day", "date", _DAY.format("activity")),
    Column("instance", "text", _SERVER),
    Column("toots_count", "bigint", "sum of `hourly_activity.toots_count`"),
    *(Column(name, "bigint", comment) for name, comment in _RECEIVED),
    is_view=True,
    personal=(),
)

# The views of the hourly tables.
ANSWERS = (
    V_HASHTAG_TRENDS,
    V_ACTIVITY_BY_WEEKDAY,
    V_SENTIMENT_BY_LANGUAGE,
    V_SENTIMENT_BY_HASHTAG,
    V_SERVERS,
    V_LATENESS,
)

ALERTS = _table(
    "alerts",
    "Incidents: what is or was wrong with the platform, and which messages were sent.",
    ("fact", "since"),
    _required("fact", "text", "what is wrong and where; the same name while it lasts"),
    _required("kind", "text", "kind of problem, such as run_failed or source_silent"),
    _required("what", "text", "what is wrong, in one line"),
    _required("since", _TIME, "when the problem was seen first"),
    Column("opened_at", _TIME, "when the incident opened; null if it has not lasted long enough"),
    Column("absent_since", _TIME, "since when the problem is not seen; null while it is"),
    Column("closed_at", _TIME, "when the incident closed; null while it is open"),
    Column("told_at", _TIME, "when the first destination took the message of its start"),
    Column("reminded_at", _TIME, "when a destination took a reminder last; null before"),
    Column("settled_at", _TIME, "when it had closed and every destination knew; null before"),
    _required("deliveries", "jsonb", "per destination, its last message and when it took it"),
    Column("failure", "text", "why the last attempt to send failed; null if it did not"),
    personal=(),
)

ANNOTATION_SAMPLE = _table(
    "annotation_sample",
    "Posts drawn at random for people to label, by strata of language, label and probability.",
    ("id",),
    _required("id", "bigint", "`toots_raw.id`"),
    _required("drawn_at", _TIME, "time of the draw; the same for all posts of one draw"),
    _required("stratum_posts", "bigint", "posts of the stratum at the draw, drawn or not"),
    _required("place", "integer", "place in the draw's random order, the same for all coders"),
    _required(
        "is_training", "boolean", "whether its labels train models; if not, they only measure them"
    ),
    _required(
        "stratum", "text", "language, label of the model and half of its probabilities at the draw"
    ),
    personal=("id",),
    is_moderated=True,
)

ANNOTATIONS = _table(
    "annotations",
    "Labels that people gave to posts of `annotation_sample`; no text is copied.",
    ("id", "coder"),
    _required("id", "bigint", "`annotation_sample.id`"),
    _required("labelled_at", _TIME, "when the coder gave the label"),
    _required(
        "settles",
        "boolean",
        "whether it settles a disagreement; it then decides and does not count as agreement",
    ),
    _required("coder", "text", "name or pseudonym of the person, as given to `annotate label`"),
    _required("label", "text", "positive, neutral, negative or unsure"),
    _required(
        "text_hash",
        "bytea",
        "SHA-256 of the `content_txt` that was labelled; the label counts while the post has it",
    ),
    personal=("id", "coder"),
    is_moderated=True,
    moderator_writes=True,
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
        V_POST_LABELS,
        DATABASE_SECRETS,
        HANDLE_KEYS,
        TOOTS_ENGAGEMENT,
        KAFKA_OFFSETS,
        TOOTS_DELETED,
        TOOT_ALIASES,
        SERVER_NAMES,
        HOME_IDS,
        HOME_VERSIONS,
        HOME_QUESTIONS,
        ACCOUNT_REFUSALS,
        TOOTS_REJECTED,
        SENTIMENT_MODELS,
        INGEST_CURSORS,
        INGEST_SOURCES,
        SUSPICIOUS_SOURCES,
        STREAM_GAPS,
        WITHDRAWN,
        DATA_VERSIONS,
        ASSET_PROGRESS,
        RETENTION_HORIZONS,
        TOOTS_UNSCORED,
        USER_TOTALS,
        HASHTAG_TOTALS,
        DAY_TOTALS,
        SENTIMENT_TOTALS,
        *HOURLY,
        *DAILY,
        CHANGED_HOURS,
        *ANSWERS,
        ALERTS,
        ANNOTATION_SAMPLE,
        ANNOTATIONS,
    )
}
