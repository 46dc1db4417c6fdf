-- n_toots = n_pos + n_neu + n_neg + n_unscored.
CREATE OR REPLACE VIEW masto.v_sentiment_by_language AS
SELECT day, instance, lang,
       sum(toots_count)::bigint AS n_toots,
       coalesce(sum(toots_count) FILTER (WHERE outcome = 'positive'), 0)::bigint AS n_pos,
       coalesce(sum(toots_count) FILTER (WHERE outcome = 'neutral'), 0)::bigint AS n_neu,
       coalesce(sum(toots_count) FILTER (WHERE outcome = 'negative'), 0)::bigint AS n_neg,
       coalesce(sum(toots_count) FILTER (WHERE NOT is_label), 0)::bigint AS n_unscored,
       (sum(total_prob_pos) / sum(toots_count) FILTER (WHERE is_label))::double precision
           AS avg_prob_pos
  FROM (SELECT *, outcome IN ('positive', 'neutral', 'negative') AS is_label
          FROM masto.daily_sentiment) posts
 GROUP BY day, instance, lang
