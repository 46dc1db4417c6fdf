-- PostgreSQL's image runs it once, as superuser, when the volume is empty: two separate databases.
-- `mastodon-assets roles` creates the roles and rights in `mastodon`.
\set dagster_password `cat /run/secrets/dagster_postgres_password`
CREATE DATABASE mastodon;
REVOKE ALL ON DATABASE mastodon FROM PUBLIC;
CREATE ROLE dagster LOGIN PASSWORD :'dagster_password';
CREATE DATABASE dagster OWNER dagster;
REVOKE ALL ON DATABASE dagster FROM PUBLIC;
