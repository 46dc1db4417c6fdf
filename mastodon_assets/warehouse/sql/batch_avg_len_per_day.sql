CREATE OR REPLACE VIEW masto.batch_avg_len_per_day AS
SELECT day, total_length::double precision / toots_count AS avg_len
  FROM masto.day_totals
