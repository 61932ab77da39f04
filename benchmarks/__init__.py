"""Every number this project claims: measured here, kept as rows that explain themselves."""
