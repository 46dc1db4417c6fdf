CREATE TABLE masto.ingest_sources (
    instance              text COLLATE "C" NOT NULL,
    source                text COLLATE "C" NOT NULL,
    state                 text NOT NULL
                          CHECK (state IN ('connected', 'silent', 'disconnected', 'refused',
                                           'paused', 'stopped')),
    detail                text,
    last_event_at         timestamptz,
    last_post_at          timestamptz,
    longest_pause_seconds double precision,
    told_at               timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (instance, source)
);
