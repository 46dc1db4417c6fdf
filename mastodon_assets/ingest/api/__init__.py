"""Mastodon's API: the client, the event stream, rate limits, identifiers, HTML as text."""
