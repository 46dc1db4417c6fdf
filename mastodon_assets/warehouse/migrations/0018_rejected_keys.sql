-- Deletes find the rejected messages of their post by the record's key, of whatever length.
CREATE INDEX toots_rejected_message_key ON masto.toots_rejected USING hash (message_key);
