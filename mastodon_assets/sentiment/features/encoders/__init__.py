"""Encoders: what turns a text into a vector of numbers, each from another source."""
