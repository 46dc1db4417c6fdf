-- An id of a post is the hash of its public uri, so it leads from a post on the web to its label.
-- Readers get another id, keyed by a secret of this database.
CREATE TABLE masto.database_secrets (
    name   text COLLATE "C" PRIMARY KEY,
    secret text NOT NULL
);
INSERT INTO masto.database_secrets VALUES
    ('post_key', gen_random_uuid()::text || gen_random_uuid()::text);
