-- Views by day read these sums instead of all hours. They change with the hours, in one transaction.
CREATE TABLE masto.daily_sentiment (
    day            date NOT NULL,
    toots_count    bigint NOT NULL,
    instance       text COLLATE "C" NOT NULL,
    lang           text COLLATE "C" NOT NULL,
    outcome        text COLLATE "C" NOT NULL,
    total_prob_pos numeric NOT NULL,
    PRIMARY KEY (day, instance, lang, outcome)
);

CREATE TABLE masto.daily_hashtags (
    day         date NOT NULL,
    toots_count bigint NOT NULL,
    n_pos       bigint NOT NULL,
    n_neu       bigint NOT NULL,
    n_neg       bigint NOT NULL,
    hashtag     text COLLATE "C" NOT NULL,
    lang        text COLLATE "C" NOT NULL,
    PRIMARY KEY (hashtag, day, lang)
);
-- Most hashtags have fewer labelled posts than the view shows.
CREATE INDEX daily_hashtags_shown ON masto.daily_hashtags (day) WHERE n_pos + n_neu + n_neg >= 5;

INSERT INTO masto.daily_sentiment (day, instance, lang, outcome, toots_count, total_prob_pos)
SELECT (hour AT TIME ZONE 'UTC')::date, instance, lang, outcome, sum(toots_count),
       sum(total_prob_pos)
  FROM masto.hourly_sentiment GROUP BY 1, 2, 3, 4;

INSERT INTO masto.daily_hashtags (day, hashtag, lang, toots_count, n_pos, n_neu, n_neg)
SELECT (hour AT TIME ZONE 'UTC')::date, hashtag, lang, sum(toots_count), sum(n_pos), sum(n_neu),
       sum(n_neg)
  FROM masto.hourly_hashtags GROUP BY 1, 2, 3;

DROP INDEX masto.hourly_sentiment_day;
DROP INDEX masto.hourly_hashtags_day;
