"""A simulated Mastodon server with synthetic or recorded toots, for demo, tests and load."""
