"""Jobs, schedules, sensors and freshness."""
