-- A producer that repeats one key slowed its rejected messages down more and more, as a busy account
-- did its posts (0029). A key may be longer than an entry of a B-tree.
DROP INDEX masto.toots_rejected_message_key;
CREATE INDEX toots_rejected_message_key ON masto.toots_rejected (sha256(message_key));
