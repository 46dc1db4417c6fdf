"""How good a model is: metrics, behavioural suites, comparison, drift, diagnostics."""
