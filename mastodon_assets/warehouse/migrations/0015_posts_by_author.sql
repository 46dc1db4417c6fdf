-- An account that refuses has its stored posts removed: they are found by its name. A hash index
-- costs the merge half of what a B-tree does, and names are only compared for equality.
CREATE INDEX toots_raw_username ON masto.toots_raw USING hash (username);
