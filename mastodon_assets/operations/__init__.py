"""The operations that touch several stages: demo, doctor, rebuild, purge, metrics endpoint."""
