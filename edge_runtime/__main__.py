"""Entry point of `python -m edge_runtime`, the same as `skyfix`."""

import sys

from edge_runtime.cli import main

sys.exit(main())
