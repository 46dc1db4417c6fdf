"""What a message is: its schema, encoding and decoding, and the one form of names and times."""
