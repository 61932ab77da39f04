"""Backends: one protocol, one file per inference library, each loaded only when it is chosen."""
