"""Rows of measurements as one page to read: tables, plots, and what to doubt."""
