"""History to batch tables (Spark)."""
