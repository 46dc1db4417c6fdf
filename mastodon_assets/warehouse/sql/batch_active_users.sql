-- The asset notes ACTIVITY_MIN_TOOTS; the number here is its default.
CREATE OR REPLACE VIEW masto.batch_active_users AS
SELECT username, toots_count, total_length::double precision / toots_count AS avg_len
  FROM masto.user_totals
 WHERE toots_count >= coalesce((SELECT parameters::bigint FROM masto.asset_progress
                                 WHERE asset = 'batch_active_users'), 5)
