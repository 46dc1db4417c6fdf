"""The rules for what is kept of a post: consent, suppression, filters, pseudonyms. Pure."""
