"""Builds an index in a process of its own, to be killed.

Arguments: map, bundle, index, JPEG quality.
"""

import sys
from pathlib import Path

from edge_runtime.backends.protocol import open_backend
from edge_runtime.bundle import Bundle
from export.index_build import build_index
from export.index_imagery import ImageryOptions
from export.index_plan import PlanOptions, TileSize
from export.index_preparation import BuildOptions

imagery, root, out, quality = sys.argv[1:]
bundle = Bundle.open(Path(root))
backend = open_backend(bundle, "ort-cpu", threads=1)
sys.stdout.write("go\n")
sys.stdout.flush()
build_index(
    [Path(imagery)],
    Path(out),
    bundle,
    backend,
    PlanOptions(sizes=(TileSize(40.0, 10.0), TileSize(60.0, 15.0)), headings=2),
    BuildOptions(imagery=ImageryOptions(quality=int(quality)), part_rows=16),
)
