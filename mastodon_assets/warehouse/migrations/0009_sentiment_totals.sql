-- prob_sum is numeric: its sum does not depend on the order of rows. No count is checked to be
-- positive: if scores were removed by hand, writers must go on.
CREATE TABLE masto.sentiment_totals (
    day           date NOT NULL,
    toots_count   bigint NOT NULL,
    outcome       text COLLATE "C" NOT NULL,
    model_version text COLLATE "C" NOT NULL,
    prob_sum      numeric NOT NULL,
    PRIMARY KEY (day, outcome, model_version)
);

INSERT INTO masto.sentiment_totals (day, outcome, model_version, toots_count, prob_sum)
SELECT (r.event_at AT TIME ZONE 'UTC')::date,
       CASE WHEN s.id IS NULL THEN 'not_scored' ELSE coalesce(s.label_str, s.reason) END,
       coalesce(s.model_version, ''), count(*), coalesce(sum(s.prob_pos::numeric), 0)
  FROM masto.toots_raw r
  LEFT JOIN masto.toots_sentiment s USING (id)
 GROUP BY 1, 2, 3;
