"""Tests: behaviour on a real broker, database and Spark session, started once for the run."""
