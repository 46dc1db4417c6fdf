CREATE TABLE masto.toot_changes (
    version  bigint NOT NULL,
    toot_id  bigint NOT NULL,
    sign     smallint NOT NULL CHECK (sign IN (-1, 1)),
    event_at timestamptz NOT NULL,
    length   integer NOT NULL,
    lang     text COLLATE "C" NOT NULL,
    username text COLLATE "C" NOT NULL,
    hashtags text[] NOT NULL,
    PRIMARY KEY (version, toot_id, sign)
);

CREATE TABLE masto.user_totals (
    username     text COLLATE "C" PRIMARY KEY,
    toots_count  bigint NOT NULL CHECK (toots_count > 0),
    total_length bigint NOT NULL CHECK (total_length >= 0)
);

CREATE TABLE masto.hashtag_totals (
    hashtag     text COLLATE "C" PRIMARY KEY,
    toots_count bigint NOT NULL CHECK (toots_count > 0)
);
CREATE INDEX hashtag_totals_toots_count ON masto.hashtag_totals (toots_count);

CREATE TABLE masto.day_totals (
    day          date PRIMARY KEY,
    toots_count  bigint NOT NULL CHECK (toots_count > 0),
    total_length bigint NOT NULL CHECK (total_length >= 0)
);

ALTER TABLE masto.asset_progress ADD COLUMN parameters text;
-- The sums are empty: what was made without them is rebuilt.
DELETE FROM masto.asset_progress WHERE asset LIKE 'batch\_%';
