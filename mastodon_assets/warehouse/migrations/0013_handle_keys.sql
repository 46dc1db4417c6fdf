-- A purge finds posts under pseudonyms only with the key that made them.
CREATE TABLE masto.handle_keys (
    key_fingerprint text COLLATE "C" PRIMARY KEY,
    first_used_at   timestamptz NOT NULL DEFAULT now()
);
