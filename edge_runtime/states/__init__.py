"""What else is known at an exposure: autopilot, logs, subtitles; `opening.open_states` by URI."""
