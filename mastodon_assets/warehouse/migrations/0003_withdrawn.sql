CREATE TABLE masto.withdrawn (
    kind            text COLLATE "C" NOT NULL CHECK (kind IN ('account', 'server')),
    hash            bytea NOT NULL,
    key_fingerprint text COLLATE "C" NOT NULL,
    withdrawn_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kind, hash)
);

ALTER TABLE masto.ingest_cursors ADD COLUMN rules text;
