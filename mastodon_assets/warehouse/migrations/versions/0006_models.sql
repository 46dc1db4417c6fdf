ALTER TABLE masto.sentiment_models
    ADD COLUMN status_reason text NOT NULL DEFAULT 'no reason was kept',
    ADD COLUMN promoted_at   timestamptz;

-- Who was champion is known of the present one and of those that it, or an earlier one, replaced.
UPDATE masto.sentiment_models SET promoted_at = trained_at WHERE status <> 'candidate';

-- The newest scores are what drift is looked for in.
CREATE INDEX toots_sentiment_scored_at ON masto.toots_sentiment (scored_at);
