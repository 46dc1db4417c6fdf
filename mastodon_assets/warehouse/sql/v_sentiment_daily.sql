-- Every post of a day is counted, labelled or not: n_toosts = n_pos + n_neg + n_neu + n_unscored.
CREATE OR REPLACE VIEW masto.v_sentiment_daily AS
SELECT day,
       sum(toots_count)::bigint AS n_toosts,
       coalesce(sum(toots_count) FILTER (WHERE outcome = 'positive'), 0)::bigint AS n_pos,
       coalesce(sum(toots_count) FILTER (WHERE outcome = 'negative'), 0)::bigint AS n_neg,
       coalesce(sum(toots_count) FILTER (WHERE outcome = 'neutral'), 0)::bigint AS n_neu,
       (sum(prob_sum) / sum(toots_count)
           FILTER (WHERE outcome IN ('positive', 'negative', 'neutral')))::double precision
           AS avg_prob_pos,
       coalesce(sum(toots_count)
           FILTER (WHERE outcome NOT IN ('positive', 'negative', 'neutral')), 0)::bigint
           AS n_unscored
  FROM masto.sentiment_totals
 GROUP BY day
