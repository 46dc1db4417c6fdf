"""A server with Mastodon's wire format, its faults and synthetic toots, for demo, tests and load."""
