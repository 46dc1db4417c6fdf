-- Run once by PostgreSQL's image, as superuser, when the volume is empty: two databases, apart.
-- Who may do what in `mastodon` is made by `mastodon-assets roles`.
\getenv dagster_password DAGSTER_POSTGRES_PASSWORD
CREATE DATABASE mastodon;
REVOKE ALL ON DATABASE mastodon FROM PUBLIC;
CREATE ROLE dagster LOGIN PASSWORD :'dagster_password';
CREATE DATABASE dagster OWNER dagster;
REVOKE ALL ON DATABASE dagster FROM PUBLIC;
