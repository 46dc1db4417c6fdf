"""PostgreSQL: the table catalog, migrations, roles, locks, connections and the suppression list."""
