"""Settings from the environment: the one place with names of variables, sources and servers."""
