"""When runs start: jobs, the nightly schedule, and the Kafka sensor with its decision."""
