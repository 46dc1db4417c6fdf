-- Posts that people label by hand, and their labels. Both are removed with the post, whoever removes
-- that, as readings of engagement are (0004).
CREATE TABLE masto.annotation_sample (
    id            bigint PRIMARY KEY REFERENCES masto.toots_raw ON DELETE CASCADE,
    drawn_at      timestamptz NOT NULL,
    stratum_posts bigint NOT NULL CHECK (stratum_posts > 0),
    place         integer NOT NULL,
    is_training   boolean NOT NULL,
    stratum       text COLLATE "C" NOT NULL
);

-- No text: only a hash of the one that was labelled, because a post may be edited later.
CREATE TABLE masto.annotations (
    id          bigint NOT NULL REFERENCES masto.annotation_sample ON DELETE CASCADE,
    labelled_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    settles     boolean NOT NULL DEFAULT false,
    coder       text COLLATE "C" NOT NULL,
    label       text NOT NULL CHECK (label IN ('positive', 'neutral', 'negative', 'unsure')),
    text_hash   bytea NOT NULL,
    PRIMARY KEY (id, coder)
);
