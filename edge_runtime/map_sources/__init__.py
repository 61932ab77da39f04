"""What satellite imagery comes as, and how each kind is read."""
