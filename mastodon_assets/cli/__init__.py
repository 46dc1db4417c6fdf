"""The command line `mastodon-assets`, one module per group of commands."""
