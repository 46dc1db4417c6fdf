"""Settings from the environment: the only place that names variables, sources and servers."""
