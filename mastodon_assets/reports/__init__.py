"""Tables to pictures and CSV files (pandas, matplotlib)."""
