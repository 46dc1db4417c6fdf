-- All entries of an account are in one bucket of a hash index, and each new one reads them all: a
-- busy account slowed its posts down more and more.
DROP INDEX masto.toots_raw_username;
CREATE INDEX toots_raw_username ON masto.toots_raw (username);
