"""PostgreSQL: the table registry, numbered migrations, connections, whole-table replacement."""
