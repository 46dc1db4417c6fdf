-- New rows fill the holes that deleted rows left, so after years of deletes every block of the table
-- holds posts of every age and a BRIN index excludes none of them.
DROP INDEX masto.toots_raw_event_at;
CREATE INDEX toots_raw_event_at ON masto.toots_raw (event_at);
