-- An account that refuses has its stored posts removed: they are found by its name.
CREATE INDEX toots_raw_username ON masto.toots_raw (username);
