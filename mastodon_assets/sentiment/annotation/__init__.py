"""Labels that people give to stored posts: samples, coders, agreement, files, evaluation."""
