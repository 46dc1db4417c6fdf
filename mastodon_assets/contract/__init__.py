"""The message contract: schema, encoding, decoding, and the one form of names and times."""
