"""What touches several stages: demo, doctor, rebuild, purge."""
