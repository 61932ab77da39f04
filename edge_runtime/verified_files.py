"""Open an artefact of many gigabytes without reading all of it each time, and stay safe.

Files that a library reads which crashes on altered bytes are hashed on every opening, and so are
small ones. Other large ones are hashed once: the file's identity (device, inode, size, times of
change) is then kept beside the manifest, and while it is the same the file is taken as it was.
Every ordinary way of altering, replacing or copying a file changes its identity. What it does not
see is a disk that rots silently; full verification (`open_artefact`) does.
"""

import contextlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from edge_runtime.artefact import Kind, Manifest, read_manifest, sha256_of, write_atomically
from edge_runtime.errors import ArtefactError

STAMPS = ".verified.json"
"""Identity and digest of files that were hashed; no part of the artefact and safe to delete."""

STAMPED_FROM_BYTES = 1 << 26
"""Smaller files are hashed in a few hundredths of a second, so always."""


def open_stamped(
    root: Path, kind: Kind, *, always: Collection[str], error: type[ArtefactError]
) -> Manifest:
    """Read the manifest and verify its files; large ones that were hashed before by identity.

    Args:
        root: the folder.
        kind: which artefact.
        always: names of files to hash whatever is known of them.
        error: to raise.

    Raises:
        error: as `open_artefact`.
    """
    manifest = read_manifest(root, kind, error=error)
    known = _read(root / STAMPS)
    stamps: dict[str, Any] = {}
    for name, expected in manifest.files.items():
        path = root / name
        try:
            stamp = [expected, *_identity(path)]
            once = name not in always and path.stat().st_size >= STAMPED_FROM_BYTES
            found = expected if once and known.get(name) == stamp else sha256_of(path)
            # One that changed while it was read is hashed again at the next opening.
            if once and [expected, *_identity(path)] == stamp:
                stamps[name] = stamp
        except OSError as cause:
            msg = (
                f"{path} cannot be read ({cause.strerror}). Copy the {kind} folder again, or make "
                f"it again with: python -m export {kind}"
            )
            raise error(msg) from cause
        if found != expected:
            msg = (
                f"{path} has digest {found[:12]}, the manifest says {expected[:12]}. Copy the "
                f"{kind} folder again, or make it again with: python -m export {kind}"
            )
            raise error(msg)
    if stamps != known:
        with contextlib.suppress(OSError):  # A folder that cannot be written is hashed every time.
            write_atomically(root / STAMPS, json.dumps(stamps).encode())
    return manifest


def _identity(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
