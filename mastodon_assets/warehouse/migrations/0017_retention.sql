-- Rows before these days are removed, and messages older than them are counted but not stored.
CREATE TABLE masto.retention_horizons (
    dataset   text COLLATE "C" PRIMARY KEY,
    first_day date NOT NULL,
    moved_at  timestamptz NOT NULL DEFAULT now()
);
INSERT INTO masto.retention_horizons (dataset, first_day)
VALUES ('posts', '0001-01-01'), ('windows', '0001-01-01');

CREATE INDEX toots_rejected_rejected_at ON masto.toots_rejected (rejected_at);
