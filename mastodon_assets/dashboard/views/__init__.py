"""The views: one module per subject, each with its queries and its charts."""
