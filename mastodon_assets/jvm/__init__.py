"""Java programs for this machine: jars from Maven, a Java runtime, class archives."""
