-- The views of servers and of lateness are filtered by their day.
CREATE INDEX hourly_activity_day ON masto.hourly_activity (((hour AT TIME ZONE 'UTC')::date));
