"""Alerts: facts become incidents, and incidents become messages for its operator."""
