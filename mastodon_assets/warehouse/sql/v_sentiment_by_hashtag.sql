-- A row of fewer labelled posts would say how single posts were labelled. A barrier, so that no
-- function in a reader's condition sees such a row either.
CREATE OR REPLACE VIEW masto.v_sentiment_by_hashtag WITH (security_barrier) AS
SELECT day, hashtag, lang, toots_count AS n_toots, n_pos, n_neu, n_neg,
       toots_count - n_pos - n_neu - n_neg AS n_unscored
  FROM masto.daily_hashtags
 WHERE n_pos + n_neu + n_neg >= 5
