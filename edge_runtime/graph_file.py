"""Open the graph of an index without ever handing usearch a file that it crashes on."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge_runtime.errors import IndexFolderError

if TYPE_CHECKING:
    from usearch.index import Index


def open_graph(path: Path, rows: int, size: int) -> "Index":
    """Open a verified graph as a view of its file.

    Args:
        path: of the file; its digest must have been checked, altered bytes crash usearch.
        rows: expected in it.
        size: numbers in a vector.

    Raises:
        IndexFolderError: unreadable, or not a graph over so many int8 vectors of this size.
    """
    from usearch.index import Index

    graph = None
    try:
        # Some versions of usearch crash on what does not begin as a graph, whoever sealed it.
        if _begins_as_graph(path, rows, size):
            graph = Index.restore(str(path), view=True)
    except (OSError, RuntimeError, ValueError) as error:
        msg = f"{path} cannot be opened as a graph ({error}). Make it again: python -m export index"
        raise IndexFolderError(msg) from error
    if graph is None or (len(graph), graph.ndim, graph.dtype.name) != (rows, size, "I8"):
        msg = (
            f"{path} is not a graph over {rows} vectors of {size} numbers as int8. Make it again: "
            "python -m export index"
        )
        raise IndexFolderError(msg)
    graph.search(np.ones(size, np.int8), 1, threads=1)  # The first search makes its work space.
    return graph


def _begins_as_graph(path: Path, rows: int, size: int) -> bool:
    """Whether a file has usearch's marks where they belong (usearch 2, index_dense.hpp).

    Two 32-bit counts, of rows and of bytes in a row; the rows; the graph, which begins with a name.
    """
    with path.open("rb") as stream:
        expected = rows.to_bytes(4, "little") + size.to_bytes(4, "little")
        if stream.read(8) != expected:
            return False
        stream.seek(rows * size, 1)
        return stream.read(7) == b"usearch"
