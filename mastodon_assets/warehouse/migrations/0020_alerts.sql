-- Incidents: problems over time, and who has been sent what about them.
CREATE TABLE masto.alerts (
    fact         text COLLATE "C" NOT NULL,
    kind         text NOT NULL,
    what         text NOT NULL,
    since        timestamptz NOT NULL,
    opened_at    timestamptz,
    absent_since timestamptz,
    closed_at    timestamptz,
    told_at      timestamptz,
    reminded_at  timestamptz,
    settled_at   timestamptz,
    deliveries   jsonb NOT NULL DEFAULT '{}',
    failure      text,
    PRIMARY KEY (fact, since)
);
CREATE UNIQUE INDEX alerts_current ON masto.alerts (fact) WHERE closed_at IS NULL;
CREATE INDEX alerts_unsettled ON masto.alerts (since) WHERE settled_at IS NULL;
CREATE INDEX alerts_closed_at ON masto.alerts (closed_at);
