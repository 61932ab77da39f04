"""Readers of data sets in the layout their owners publish them in."""
