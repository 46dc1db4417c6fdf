"""Corpora and the fit of a model."""
