-- A condition on the day reaches both tables, because the day is grouped by.
CREATE OR REPLACE VIEW masto.v_servers AS
SELECT day, instance,
       coalesce(sum(toots_count), 0)::bigint AS toots_count,
       (sum(accounts_count) / count(DISTINCT hour_with_posts))::double precision
           AS accounts_per_hour,
       coalesce(sum(deletes_count), 0)::bigint AS deletes_count,
       coalesce(sum(stored_count), 0)::bigint AS deletes_of_stored,
       coalesce(sum(stored_count), 0)::double precision
           / nullif(coalesce(sum(toots_count), 0) + coalesce(sum(stored_count), 0), 0)
           AS share_deleted
  FROM (SELECT (hour AT TIME ZONE 'UTC')::date AS day, instance, hour AS hour_with_posts,
               toots_count, accounts_count, NULL::bigint AS deletes_count,
               NULL::bigint AS stored_count
          FROM masto.hourly_activity
         UNION ALL
        SELECT (hour AT TIME ZONE 'UTC')::date, instance, NULL, NULL, NULL, deletes_count,
               stored_count
          FROM masto.hourly_deletes) counts
 GROUP BY day, instance
