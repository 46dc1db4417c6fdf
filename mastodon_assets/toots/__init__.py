"""Kafka to tables: message contract, parsing, sink, offsets ledger, windows."""
