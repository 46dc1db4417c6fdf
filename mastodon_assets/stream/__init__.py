"""Kafka to tables: the query, parsing, the merge, windows and the offsets ledger."""
