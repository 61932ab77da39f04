"""Recordings of a flight: what the localizer was given and what it answered, to fly it again."""
