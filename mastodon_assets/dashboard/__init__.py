"""The dashboard: what the posts say, as pages, files and live updates, from aggregates alone."""
