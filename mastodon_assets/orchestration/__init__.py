"""All of Dagster: assets, jobs, schedules, sensors, resources."""
