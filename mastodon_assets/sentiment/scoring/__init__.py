"""Texts to labels: tables, micro-batches, CSV files, explanations."""
