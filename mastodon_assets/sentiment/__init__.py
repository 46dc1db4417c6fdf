"""Text to labels: corpus, pipeline, training, evaluation, registry, scoring (Spark MLlib)."""
