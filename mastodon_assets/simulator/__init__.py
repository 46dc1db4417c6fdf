"""A server with Mastodon's wire format and synthetic or recorded toots; for demo, tests, load."""
