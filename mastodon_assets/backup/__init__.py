"""Backups: made, found, removed and restored."""
