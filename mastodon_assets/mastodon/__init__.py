"""Network to Kafka: stream client, REST back-fill, consent, publisher. No Spark, no Dagster."""
