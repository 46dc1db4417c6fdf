-- The view by language is filtered by its day.
CREATE INDEX hourly_sentiment_day ON masto.hourly_sentiment (((hour AT TIME ZONE 'UTC')::date));
