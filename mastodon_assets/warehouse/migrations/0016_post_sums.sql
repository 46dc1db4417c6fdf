-- Sums change in the transaction that changes posts, and batch tables read them. The change log,
-- which assets replayed, is replaced by the ids of the posts that wait for a score.
DROP TABLE masto.batch_active_users, masto.batch_top_hashtag, masto.batch_avg_len_per_day,
           masto.toot_changes;
TRUNCATE masto.user_totals, masto.hashtag_totals, masto.day_totals, masto.batch_hashtag_by_hour,
         masto.batch_toots_per_day, masto.batch_toots_by_lang_per_day;
ALTER TABLE masto.day_totals ADD COLUMN toots_version bigint NOT NULL;

INSERT INTO masto.user_totals (username, toots_count, total_length)
SELECT username, count(*), sum(char_length(content_txt)) FROM masto.toots_raw GROUP BY 1;

INSERT INTO masto.hashtag_totals (hashtag, toots_count)
SELECT hashtag, count(*) FROM masto.toots_raw, unnest(hashtags) AS hashtag GROUP BY 1;

INSERT INTO masto.batch_hashtag_by_hour (hour, hashtag, toots_count)
SELECT date_trunc('hour', event_at, 'UTC'), hashtag, count(*)
  FROM masto.toots_raw, unnest(hashtags) AS hashtag GROUP BY 1, 2;

INSERT INTO masto.day_totals (day, toots_count, total_length, toots_version)
SELECT (event_at AT TIME ZONE 'UTC')::date, count(*), sum(char_length(content_txt)),
       (SELECT version FROM masto.data_versions WHERE dataset = 'toots_raw')
  FROM masto.toots_raw GROUP BY 1;

INSERT INTO masto.batch_toots_per_day (day, toots_count)
SELECT day, toots_count FROM masto.day_totals;

INSERT INTO masto.batch_toots_by_lang_per_day (day, lang, toots_count)
SELECT (event_at AT TIME ZONE 'UTC')::date, lang, count(*) FROM masto.toots_raw GROUP BY 1, 2;

CREATE TABLE masto.toots_unscored (
    id bigint PRIMARY KEY
);
INSERT INTO masto.toots_unscored (id)
SELECT r.id FROM masto.toots_raw r LEFT JOIN masto.toots_sentiment s USING (id)
 WHERE (r.content_txt, r.lang, r.created_at) IS DISTINCT FROM (s.text, s.lang, s.created_at);

-- Of `batch_active_users` the parameter is the smallest number of posts, which its view reads.
UPDATE masto.asset_progress SET parameters = NULL WHERE asset LIKE 'batch\_%';

-- Room for updates within a page, and no index on a count: an update then touches no index.
ALTER TABLE masto.user_totals SET (fillfactor = 70);
ALTER TABLE masto.hashtag_totals SET (fillfactor = 70);
ALTER TABLE masto.batch_hashtag_by_hour SET (fillfactor = 90);
DROP INDEX masto.hashtag_totals_toots_count;
