-- A reading is removed with its post, whoever removes that. The cascade costs nothing if no post is
-- removed, and less than a statement of its own if some are.
CREATE TABLE masto.toots_engagement (
    id         bigint NOT NULL REFERENCES masto.toots_raw ON DELETE CASCADE,
    read_at    timestamptz NOT NULL,
    favourites integer CHECK (favourites >= 0),
    reblogs    integer CHECK (reblogs >= 0),
    replies    integer CHECK (replies >= 0),
    due_hours  smallint NOT NULL CHECK (due_hours IN (1, 24)),
    PRIMARY KEY (id, due_hours)
);

-- Finds the posts of the last days. Rows come nearly in the order of time, so one entry per many
-- pages suffices and costs the writer next to nothing.
CREATE INDEX toots_raw_event_at ON masto.toots_raw USING brin (event_at) WITH (autosummarize = on);
