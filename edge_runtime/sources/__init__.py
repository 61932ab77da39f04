"""Where frames come from: cameras, streams, videos, photographs; `opening.open_frames` by URI."""
