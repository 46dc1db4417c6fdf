"""The deployment in docker/: what its files say, and the image at work."""
