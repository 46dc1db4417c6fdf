ALTER TABLE masto.sentiment_models
    ADD COLUMN status_reason text NOT NULL DEFAULT 'no reason was kept',
    ADD COLUMN promoted_at   timestamptz;

-- Known champions are the present one and those that were replaced.
UPDATE masto.sentiment_models SET promoted_at = trained_at WHERE status <> 'candidate';

-- Drift is measured on the newest scores.
CREATE INDEX toots_sentiment_scored_at ON masto.toots_sentiment (scored_at);
