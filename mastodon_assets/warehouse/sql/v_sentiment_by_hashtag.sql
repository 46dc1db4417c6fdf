-- A row of fewer labelled posts would say how single posts were labelled.
CREATE OR REPLACE VIEW masto.v_sentiment_by_hashtag AS
SELECT (hour AT TIME ZONE 'UTC')::date AS day, hashtag, lang,
       sum(toots_count)::bigint AS n_toots,
       sum(n_pos)::bigint AS n_pos,
       sum(n_neu)::bigint AS n_neu,
       sum(n_neg)::bigint AS n_neg,
       sum(toots_count - n_pos - n_neu - n_neg)::bigint AS n_unscored
  FROM masto.hourly_hashtags
 GROUP BY (hour AT TIME ZONE 'UTC')::date, hashtag, lang
HAVING sum(n_pos + n_neu + n_neg) >= 5
