-- A reading goes with its post, whoever removes that: the cascade costs nothing where no post goes,
-- and less than a statement of its own where some do.
CREATE TABLE masto.toots_engagement (
    id         bigint NOT NULL REFERENCES masto.toots_raw ON DELETE CASCADE,
    read_at    timestamptz NOT NULL,
    favourites integer CHECK (favourites >= 0),
    reblogs    integer CHECK (reblogs >= 0),
    replies    integer CHECK (replies >= 0),
    due_hours  smallint NOT NULL CHECK (due_hours IN (1, 24)),
    PRIMARY KEY (id, due_hours)
);

-- Posts of the last days are found by it. Rows come nearly in the order of time, so an entry for
-- many pages is enough, and costs the writer next to nothing.
CREATE INDEX toots_raw_event_at ON masto.toots_raw USING brin (event_at) WITH (autosummarize = on);
