"""Text to features: cleaning, n-grams, lexicon, embedding."""
