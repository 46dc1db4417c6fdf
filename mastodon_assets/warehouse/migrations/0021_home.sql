-- The home of a post is the server in its uri. Where it is a source, it has the last word.

-- A recording that is imported says nothing about what its server shows now.
ALTER TABLE masto.toots_raw ADD COLUMN is_imported boolean NOT NULL DEFAULT false;

CREATE TABLE masto.server_names (
    name     text COLLATE "C" PRIMARY KEY,
    instance text COLLATE "C" NOT NULL,
    has_ids  boolean NOT NULL DEFAULT false
);

-- Two uris may end in the same id, so an id may lead to several posts.
CREATE TABLE masto.home_ids (
    id        bigint NOT NULL,
    instance  text COLLATE "C" NOT NULL,
    status_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (instance, status_id, id)
);
CREATE INDEX home_ids_id ON masto.home_ids (id);

CREATE TABLE masto.home_versions (
    id             bigint PRIMARY KEY,
    created_at     timestamptz NOT NULL,
    edited_at      timestamptz,
    received_at    timestamptz NOT NULL,
    payload_hash   bigint NOT NULL,
    favourites     integer NOT NULL,
    reblogs        integer NOT NULL,
    replies        integer NOT NULL,
    is_bot         boolean NOT NULL,
    is_sensitive   boolean NOT NULL,
    instance       text COLLATE "C" NOT NULL,
    status_id      text COLLATE "C" NOT NULL,
    uri            text COLLATE "C" NOT NULL,
    username       text COLLATE "C" NOT NULL,
    user_id        text,
    lang           text COLLATE "C" NOT NULL,
    visibility     text,
    in_reply_to_id text,
    hashtags       text[] NOT NULL,
    content_txt    text NOT NULL,
    content_html   text
);

CREATE TABLE masto.home_questions (
    id        bigint PRIMARY KEY,
    instance  text COLLATE "C" NOT NULL,
    status_id text COLLATE "C" NOT NULL,
    since     timestamptz NOT NULL DEFAULT now(),
    asked_at  timestamptz
);
CREATE INDEX home_questions_instance ON masto.home_questions (instance);

CREATE TABLE masto.account_refusals (
    hash       bytea PRIMARY KEY,
    instance   text COLLATE "C" NOT NULL,
    refused_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO masto.database_secrets VALUES
    ('refusal_key', gen_random_uuid()::text || gen_random_uuid()::text);

-- Servers that were read, by their own names and by the hosts at which they were read.
INSERT INTO masto.server_names (name, instance)
SELECT DISTINCT lower(instance), instance FROM masto.ingest_sources
 UNION
SELECT DISTINCT lower(instance), instance FROM masto.ingest_cursors;
INSERT INTO masto.server_names (name, instance)
SELECT lower(split_part(address, ':', 1)), min(instance) FROM masto.ingest_sources
 WHERE address IS NOT NULL AND address !~ '^(127\.|localhost|\[)'
 GROUP BY 1 HAVING count(DISTINCT instance) = 1
    ON CONFLICT DO NOTHING;

-- Posts of a server's own accounts tell the host of its uris, and whether they end in the id.
CREATE TEMP TABLE post_hosts ON COMMIT DROP AS
SELECT lower(split_part(split_part(split_part(uri, '://', 2), '/', 1), ':', 1)) AS host, instance,
       bool_and(substring(rtrim(uri, '/') FROM '[^/]*$') = status_id) AS has_ids
  FROM masto.toots_raw
 WHERE instance IN (SELECT instance FROM masto.server_names)
   AND split_part(username, '@', 2) = instance
 GROUP BY 1, 2;
DELETE FROM post_hosts WHERE host = '' OR host IN
    (SELECT host FROM post_hosts GROUP BY host HAVING count(*) > 1);
INSERT INTO masto.server_names (name, instance, has_ids) SELECT host, instance, has_ids FROM post_hosts
    ON CONFLICT (name) DO UPDATE SET has_ids = excluded.has_ids
 WHERE server_names.instance = excluded.instance;

-- Posts that were read from other servers, by the ids in their uris.
INSERT INTO masto.home_ids (id, instance, status_id)
SELECT r.id, n.instance, substring(rtrim(r.uri, '/') FROM '[^/]*$')
  FROM masto.toots_raw r
  JOIN masto.server_names n
    ON n.has_ids
   AND n.name = lower(split_part(split_part(split_part(r.uri, '://', 2), '/', 1), ':', 1))
 WHERE r.instance <> n.instance AND substring(rtrim(r.uri, '/') FROM '[^/]*$') <> ''
   AND NOT EXISTS (SELECT FROM masto.toot_aliases a
                    WHERE a.id = r.id AND a.instance = n.instance);
