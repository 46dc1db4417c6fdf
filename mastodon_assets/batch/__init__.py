"""Batch tables: sums over all stored posts."""
