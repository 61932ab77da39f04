"""Two files of measurements against each other."""
