CREATE OR REPLACE VIEW masto.v_servers AS
WITH posts AS (
    SELECT (hour AT TIME ZONE 'UTC')::date AS day, instance,
           sum(toots_count)::bigint AS toots_count,
           (sum(accounts_count) / count(DISTINCT hour))::double precision AS accounts_per_hour
      FROM masto.hourly_activity
     GROUP BY 1, 2
),
deletes AS (
    SELECT (hour AT TIME ZONE 'UTC')::date AS day, instance,
           sum(deletes_count)::bigint AS deletes_count,
           sum(stored_count)::bigint AS deletes_of_stored
      FROM masto.hourly_deletes
     GROUP BY 1, 2
)
SELECT day, instance,
       coalesce(toots_count, 0) AS toots_count,
       accounts_per_hour,
       coalesce(deletes_count, 0) AS deletes_count,
       coalesce(deletes_of_stored, 0) AS deletes_of_stored,
       coalesce(deletes_of_stored, 0)::double precision
           / nullif(coalesce(toots_count, 0) + coalesce(deletes_of_stored, 0), 0) AS share_deleted
  FROM posts FULL JOIN deletes USING (day, instance)
