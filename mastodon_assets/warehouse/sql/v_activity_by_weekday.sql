-- The running hour is not complete. A day without any post says that nothing was read.
CREATE OR REPLACE VIEW masto.v_activity_by_weekday AS
WITH posts AS (
    SELECT hour, sum(toots_count) AS toots_count FROM masto.hourly_activity
     WHERE hour < date_trunc('hour', now(), 'UTC')
     GROUP BY hour
),
read_days AS (
    SELECT DISTINCT date_trunc('day', hour, 'UTC') AS day FROM posts
),
hours AS (
    SELECT day + number * interval '1 hour' AS hour
      FROM read_days, generate_series(0, 23) number,
           (SELECT min(hour) AS first, max(hour) AS last FROM posts) span
     WHERE day + number * interval '1 hour' BETWEEN span.first AND span.last
)
SELECT extract(isodow FROM hour AT TIME ZONE 'UTC')::integer AS weekday,
       extract(hour FROM hour AT TIME ZONE 'UTC')::integer AS hour_of_day,
       coalesce(sum(toots_count), 0)::bigint AS toots_count,
       count(*) AS hours_count,
       (coalesce(sum(toots_count), 0) / count(*))::double precision AS mean_toots
  FROM hours LEFT JOIN posts USING (hour)
 GROUP BY 1, 2
