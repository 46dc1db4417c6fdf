-- Fixed-width columns come first, so that there is no padding. Text that is compared for order or
-- equality is COLLATE "C": the same on every machine, and faster.

CREATE TABLE masto.toots_raw (
    id             bigint PRIMARY KEY,
    created_at     timestamptz NOT NULL,
    edited_at      timestamptz,
    received_at    timestamptz NOT NULL,
    event_at       timestamptz NOT NULL,
    payload_hash   bigint NOT NULL,
    favourites     integer NOT NULL,
    reblogs        integer NOT NULL,
    replies        integer NOT NULL,
    is_bot         boolean NOT NULL,
    is_sensitive   boolean NOT NULL,
    instance       text COLLATE "C" NOT NULL,
    status_id      text COLLATE "C" NOT NULL,
    uri            text COLLATE "C" NOT NULL,
    username       text COLLATE "C" NOT NULL,
    user_id        text,
    lang           text COLLATE "C" NOT NULL,
    visibility     text,
    in_reply_to_id text,
    hashtags       text[] NOT NULL,
    content_txt    text NOT NULL,
    content_html   text
);

CREATE TABLE masto.toot_metrics_windowed (
    window_start timestamptz NOT NULL,
    window_end   timestamptz NOT NULL,
    toots_count  bigint NOT NULL CHECK (toots_count > 0),
    total_length bigint NOT NULL CHECK (total_length >= 0),
    lang         text COLLATE "C" NOT NULL,
    avg_length   double precision
                 GENERATED ALWAYS AS (total_length::double precision / toots_count) STORED,
    PRIMARY KEY (window_start, lang)
);

CREATE TABLE masto.user_avg_length_windowed (
    window_start timestamptz NOT NULL,
    window_end   timestamptz NOT NULL,
    toots_count  bigint NOT NULL CHECK (toots_count > 0),
    total_length bigint NOT NULL CHECK (total_length >= 0),
    username     text COLLATE "C" NOT NULL,
    avg_length   double precision
                 GENERATED ALWAYS AS (total_length::double precision / toots_count) STORED,
    PRIMARY KEY (window_start, username)
);

CREATE TABLE masto.batch_active_users (
    username    text COLLATE "C" PRIMARY KEY,
    toots_count bigint NOT NULL,
    avg_len     double precision NOT NULL
);

CREATE TABLE masto.batch_hashtag_by_hour (
    hour        timestamptz NOT NULL,
    hashtag     text COLLATE "C" NOT NULL,
    toots_count bigint NOT NULL,
    PRIMARY KEY (hour, hashtag)
);

CREATE TABLE masto.batch_top_hashtag (
    hashtag     text COLLATE "C" PRIMARY KEY,
    toots_count bigint NOT NULL,
    rank        integer NOT NULL
);

CREATE TABLE masto.batch_toots_per_day (
    day         date PRIMARY KEY,
    toots_count bigint NOT NULL
);

CREATE TABLE masto.batch_avg_len_per_day (
    day     date PRIMARY KEY,
    avg_len double precision NOT NULL
);

CREATE TABLE masto.batch_toots_by_lang_per_day (
    day         date NOT NULL,
    lang        text COLLATE "C" NOT NULL,
    toots_count bigint NOT NULL,
    PRIMARY KEY (day, lang)
);

CREATE TABLE masto.toots_sentiment (
    id            bigint PRIMARY KEY,
    created_at    timestamptz NOT NULL,
    scored_at     timestamptz NOT NULL,
    prob_pos      double precision CHECK (prob_pos BETWEEN 0 AND 1),
    label_bin     smallint CHECK (label_bin IN (0, 1)),
    lang          text COLLATE "C" NOT NULL,
    label_str     text CHECK (label_str IN ('positive', 'negative', 'neutral')),
    reason        text CHECK (reason IN ('unsupported_language', 'no_words', 'no_model')),
    model_version text,
    text          text NOT NULL,
    CONSTRAINT toots_sentiment_labelled_or_reasoned CHECK (
        (reason IS NULL AND num_nulls(prob_pos, label_bin, label_str, model_version) = 0)
        OR (reason IS NOT NULL AND num_nonnulls(prob_pos, label_bin, label_str) = 0))
);

CREATE TABLE masto.kafka_offsets (
    topic       text COLLATE "C" NOT NULL,
    partition   integer NOT NULL,
    topic_id    text NOT NULL,
    next_offset bigint NOT NULL CHECK (next_offset >= 0),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, partition)
);

CREATE TABLE masto.toots_deleted (
    instance   text COLLATE "C" NOT NULL,
    status_id  text COLLATE "C" NOT NULL,
    deleted_at timestamptz NOT NULL,
    PRIMARY KEY (instance, status_id)
);

CREATE TABLE masto.toot_aliases (
    instance  text COLLATE "C" NOT NULL,
    status_id text COLLATE "C" NOT NULL,
    id        bigint NOT NULL,
    PRIMARY KEY (instance, status_id)
);
CREATE INDEX toot_aliases_id ON masto.toot_aliases (id);

CREATE TABLE masto.toots_rejected (
    topic        text COLLATE "C" NOT NULL,
    partition    integer NOT NULL,
    kafka_offset bigint NOT NULL,
    reason       text NOT NULL,
    payload      bytea,
    message_key  bytea,
    rejected_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, partition, kafka_offset)
);

CREATE TABLE masto.sentiment_models (
    version    text COLLATE "C" PRIMARY KEY,
    trained_at timestamptz NOT NULL,
    metrics    jsonb NOT NULL,
    corpus     text NOT NULL,
    status     text NOT NULL CHECK (status IN ('candidate', 'champion', 'retired')),
    path       text NOT NULL
);
CREATE UNIQUE INDEX sentiment_models_one_champion
    ON masto.sentiment_models (status) WHERE status = 'champion';

CREATE TABLE masto.ingest_cursors (
    instance      text COLLATE "C" NOT NULL,
    source        text COLLATE "C" NOT NULL,
    last_acked_id text NOT NULL,
    updated_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (instance, source)
);

CREATE TABLE masto.stream_gaps (
    instance        text COLLATE "C" NOT NULL,
    source          text COLLATE "C" NOT NULL,
    started_at      timestamptz NOT NULL,
    ended_at        timestamptz,
    from_id         text,
    to_id           text,
    reason          text NOT NULL,
    recovered_count bigint NOT NULL DEFAULT 0,
    status          text NOT NULL
                    CHECK (status IN ('open', 'recovered', 'partial', 'unrecoverable')),
    PRIMARY KEY (instance, source, started_at)
);

CREATE TABLE masto.data_versions (
    dataset    text COLLATE "C" PRIMARY KEY,
    version    bigint NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO masto.data_versions (dataset, version) VALUES ('toots_raw', 0);

CREATE TABLE masto.asset_progress (
    asset         text COLLATE "C" PRIMARY KEY,
    toots_version bigint NOT NULL,
    model_version text,
    updated_at    timestamptz NOT NULL DEFAULT now()
);
