CREATE OR REPLACE VIEW masto.batch_top_hashtag AS
SELECT hashtag, toots_count, 1 AS rank
  FROM masto.hashtag_totals
 WHERE toots_count = (SELECT max(toots_count) FROM masto.hashtag_totals)
