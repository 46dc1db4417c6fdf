"""What may be kept of a post: consent, suppression, filters, pseudonyms. Pure functions."""
