"""The Dagster assets and checks, thin: read, call, write, report. One module per group."""
