"""Spark sessions and the storage that driver and executors share."""
