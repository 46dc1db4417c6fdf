-- Numbers per hour. Whoever changes posts or scores marks the hours, and the refresh computes these
-- again, so counts of different accounts are exact and no transaction of the stream counts them.
CREATE TABLE masto.changed_hours (
    hour    timestamptz PRIMARY KEY,
    changes bigint NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE masto.hourly_activity (
    hour           timestamptz NOT NULL,
    toots_count    bigint NOT NULL,
    accounts_count bigint NOT NULL,
    received_1m    bigint NOT NULL,
    received_10m   bigint NOT NULL,
    received_1h    bigint NOT NULL,
    received_1d    bigint NOT NULL,
    received_later bigint NOT NULL,
    instance       text COLLATE "C" NOT NULL,
    lang           text COLLATE "C" NOT NULL,
    PRIMARY KEY (hour, instance, lang)
);

CREATE TABLE masto.hourly_sentiment (
    hour           timestamptz NOT NULL,
    toots_count    bigint NOT NULL,
    instance       text COLLATE "C" NOT NULL,
    lang           text COLLATE "C" NOT NULL,
    outcome        text COLLATE "C" NOT NULL,
    total_prob_pos numeric NOT NULL,
    PRIMARY KEY (hour, instance, lang, outcome)
);

CREATE TABLE masto.hourly_hashtags (
    hour           timestamptz NOT NULL,
    toots_count    bigint NOT NULL,
    accounts_count bigint NOT NULL,
    n_pos          bigint NOT NULL,
    n_neu          bigint NOT NULL,
    n_neg          bigint NOT NULL,
    hashtag        text COLLATE "C" NOT NULL,
    instance       text COLLATE "C" NOT NULL,
    lang           text COLLATE "C" NOT NULL,
    PRIMARY KEY (hour, hashtag, instance, lang)
);
-- The view by day is filtered by it.
CREATE INDEX hourly_hashtags_day ON masto.hourly_hashtags (((hour AT TIME ZONE 'UTC')::date));

CREATE TABLE masto.hourly_hashtag_accounts (
    hour           timestamptz NOT NULL,
    accounts_count bigint NOT NULL,
    hashtag        text COLLATE "C" NOT NULL,
    PRIMARY KEY (hour, hashtag)
);

CREATE TABLE masto.hourly_deletes (
    hour          timestamptz NOT NULL,
    deletes_count bigint NOT NULL,
    stored_count  bigint NOT NULL,
    instance      text COLLATE "C" NOT NULL,
    PRIMARY KEY (hour, instance)
);
CREATE INDEX toots_deleted_deleted_at ON masto.toots_deleted (deleted_at);

INSERT INTO masto.changed_hours (hour, changes)
SELECT date_trunc('hour', event_at, 'UTC'), 1 FROM masto.toots_raw GROUP BY 1;

INSERT INTO masto.changed_hours (hour, changes)
SELECT date_trunc('hour', deleted_at, 'UTC'), 1 FROM masto.toots_deleted GROUP BY 1
    ON CONFLICT (hour) DO NOTHING;
