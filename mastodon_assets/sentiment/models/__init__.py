"""Stored models: registry, folders, promotion, lifecycle."""
