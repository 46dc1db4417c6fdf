-- Removals that were concluded for many posts at once wait here until a person accepts them.
CREATE TABLE masto.suspicious_sources (
    instance       text COLLATE "C" PRIMARY KEY,
    reason         text NOT NULL,
    since          timestamptz NOT NULL DEFAULT now(),
    status_ids     text[] NOT NULL DEFAULT '{}',
    accepted_until timestamptz
);

ALTER TABLE masto.ingest_sources ADD COLUMN address text COLLATE "C";
