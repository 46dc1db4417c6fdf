-- Neither text nor exact times: they would lead to the post, too.
CREATE OR REPLACE VIEW masto.v_post_labels AS
SELECT encode(sha256(convert_to(k.secret || s.id::text, 'UTF8')), 'hex') AS post_key,
       (r.event_at AT TIME ZONE 'UTC')::date AS day,
       s.lang,
       s.label_str,
       s.reason,
       s.model_version
  FROM masto.toots_sentiment s
  JOIN masto.toots_raw r USING (id)
  JOIN masto.database_secrets k ON k.name = 'post_key'
