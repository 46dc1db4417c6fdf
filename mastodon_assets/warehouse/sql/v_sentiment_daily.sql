-- Every post of a day counts, labelled or not: n_toosts = n_pos + n_neg + n_neu + n_unscored.
CREATE OR REPLACE VIEW masto.v_sentiment_daily AS
SELECT (r.event_at AT TIME ZONE 'UTC')::date AS day,
       count(*) AS n_toosts,
       count(*) FILTER (WHERE s.label_str = 'positive') AS n_pos,
       count(*) FILTER (WHERE s.label_str = 'negative') AS n_neg,
       count(*) FILTER (WHERE s.label_str = 'neutral') AS n_neu,
       avg(s.prob_pos) AS avg_prob_pos,
       count(*) FILTER (WHERE s.label_str IS NULL) AS n_unscored
  FROM masto.toots_raw r
  LEFT JOIN masto.toots_sentiment s USING (id)
 GROUP BY 1
