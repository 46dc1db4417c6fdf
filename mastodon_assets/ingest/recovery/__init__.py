"""What a stream missed: gaps, cursors and walks of the timeline."""
