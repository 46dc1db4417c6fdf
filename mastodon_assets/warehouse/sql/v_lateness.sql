-- toots_count = received_1m + received_10m + received_1h + received_1d + received_later.
CREATE OR REPLACE VIEW masto.v_lateness AS
SELECT (hour AT TIME ZONE 'UTC')::date AS day, instance,
       sum(toots_count)::bigint AS toots_count,
       sum(received_1m)::bigint AS received_1m,
       sum(received_10m)::bigint AS received_10m,
       sum(received_1h)::bigint AS received_1h,
       sum(received_1d)::bigint AS received_1d,
       sum(received_later)::bigint AS received_later
  FROM masto.hourly_activity
 GROUP BY 1, 2
