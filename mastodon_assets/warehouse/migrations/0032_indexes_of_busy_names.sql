-- A hash index keeps all rows of one value in one chain of pages, and each new row reads the chain
-- to its end. With many posts of one author the merge became slower with each post.
DROP INDEX masto.toots_raw_username;
CREATE INDEX toots_raw_username ON masto.toots_raw (username);
DROP INDEX masto.toots_rejected_message_key;
-- A key may be longer than an entry of a B-tree.
CREATE INDEX toots_rejected_message_key ON masto.toots_rejected (sha256(message_key));
