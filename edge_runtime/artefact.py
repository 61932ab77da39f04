"""Artefact folders: written whole or not at all, verified before they are believed.

An artefact is a plain folder with a `manifest.json` that names every file with its sha256. It is
filled under a temporary name beside its place, flushed to disk, and exchanged with the old one in
one step, so a reader finds the old folder or the new one and never a mixture. Where the system
cannot exchange folders, two renames do it, and whoever comes next mends what a crash between them
left.
"""

import ctypes
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from edge_runtime.errors import ArtefactError

Kind = Literal["checkpoint", "bundle", "index", "world", "training-state"]

MANIFEST = "manifest.json"
SCHEMA = 1
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a folder says of itself."""

    kind: Kind
    """Which artefact this is."""
    id: str
    """First 12 hex digits of a sha256 over kind, files' digests and `meta`: content decides it."""
    meta: dict[str, Any]
    """What the artefact's own module reads: shapes, settings, provenance."""
    files: dict[str, str]
    """sha256 of every file, by its path relative to the folder."""
    made_by: str
    """Program and version."""
    created_utc: str
    """ISO 8601; not part of the id."""

    def path_of(self, root: Path, name: str, *, error: type[ArtefactError] = ArtefactError) -> Path:
        """Path of a file this manifest vouches for.

        Raises:
            error: the manifest does not list it, so nothing says what it should hold.
        """
        if name not in self.files:
            msg = (
                f"{root / MANIFEST} does not list {name}; a file it does not list is not believed. "
                f"Make the {self.kind} folder again with: {_maker(self.kind)}"
            )
            raise error(msg)
        return root / name


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file, read in chunks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_of_json(value: Any) -> str:
    """Hex sha256 of a JSON value in canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write one file so that it is there whole or as it was before, even after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def made_by() -> str:
    """Name and version of this program, as manifests record it."""
    try:
        return f"skyfix {version('skyfix')}"
    except PackageNotFoundError:
        return "skyfix (from a checkout)"


@contextmanager
def writing_artefact(
    root: Path, kind: Kind, meta: dict[str, Any], *, unlisted: str | None = None
) -> Iterator[Path]:
    """Fill a folder under a temporary name; on leaving the block, seal and rename it to `root`.

    `meta` is read when the block ends, so the block may still add to it. If the block raises,
    nothing is left behind and an older artefact at `root` stays as it was.

    Args:
        root: the folder.
        kind: which artefact.
        meta: for the manifest.
        unlisted: a folder in it whose files vouch for themselves and may change later, so the
            manifest does not list them; an older artefact's are taken over.

    Raises:
        ArtefactError: `root` exists and is not an artefact of this kind, so it is not overwritten.
    """
    root = root.resolve()
    root.parent.mkdir(parents=True, exist_ok=True)
    _put_back(root)
    if root.exists() and (not root.is_dir() or (any(root.iterdir()) and not _is_kind(root, kind))):
        msg = f"{root} exists and is not {_named(kind)} folder; remove it or choose another name"
        raise ArtefactError(msg)
    for leftover in _leftovers(root):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = root.with_name(f".{root.name}.{os.getpid()}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        if unlisted and (root / unlisted).is_dir() and not (temporary / unlisted).exists():
            shutil.copytree(root / unlisted, temporary / unlisted, copy_function=_link)
        _seal(temporary, kind, meta, unlisted)
        _swap_in(temporary, root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_manifest(
    root: Path, kind: Kind, *, error: type[ArtefactError] = ArtefactError
) -> Manifest:
    """Read and verify the manifest alone, without the files.

    Raises:
        error: the folder or its manifest is missing, unreadable, altered, or of another kind or
            schema.
    """
    path = root / MANIFEST
    try:
        _put_back(root.resolve())
        value = json.loads(path.read_text())
        manifest = Manifest(
            kind=value["kind"],
            id=value["id"],
            meta=value["meta"],
            files=value["files"],
            made_by=value["made_by"],
            created_utc=value["created_utc"],
        )
        schema = value["schema"]
    except FileNotFoundError as cause:
        msg = (
            f"{root} is not {_named(kind)} folder: it has no {MANIFEST}. Make one with: "
            f"{_maker(kind)}"
        )
        raise error(msg) from cause
    except (OSError, ValueError, KeyError, TypeError) as cause:
        msg = (
            f"{path} is not a readable manifest ({cause}). Copy the folder again, or make it "
            f"again with: {_maker(kind)}"
        )
        raise error(msg) from cause
    if manifest.kind != kind:
        msg = (
            f"{root} is {_named(manifest.kind)} folder; expected {_named(kind)}. Make one with: "
            f"{_maker(kind)}"
        )
        raise error(msg)
    if schema != SCHEMA:
        msg = (
            f"{root} has manifest schema {schema}; this skyfix reads {SCHEMA}. Make it again "
            f"with: {_maker(kind)}"
        )
        raise error(msg)
    found = _id_of(kind, manifest.files, manifest.meta)
    if found != manifest.id:
        msg = (
            f"{path} holds what has id {found}, it says {manifest.id}. Copy the {kind} folder "
            f"again, or make it again with: {_maker(kind)}"
        )
        raise error(msg)
    return manifest


def open_artefact(
    root: Path, kind: Kind, *, error: type[ArtefactError] = ArtefactError
) -> Manifest:
    """Read the manifest and verify every file against its sha256.

    Raises:
        error: as `read_manifest`, or a file is missing or differs from the manifest.
    """
    manifest = read_manifest(root, kind, error=error)
    for name, expected in manifest.files.items():
        try:
            found = sha256_of(root / name)
        except OSError as cause:
            msg = (
                f"{root / name} cannot be read ({cause.strerror}). Copy the {kind} folder again, "
                f"or make it again with: {_maker(kind)}"
            )
            raise error(msg) from cause
        if found != expected:
            msg = (
                f"{root / name} has digest {found[:12]}, the manifest says {expected[:12]}. "
                f"Copy the {kind} folder again, or make it again with: {_maker(kind)}"
            )
            raise error(msg)
    return manifest


def _named(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeio" else f"a {kind}"


def _maker(kind: Kind) -> str:
    return {
        "checkpoint": "python -m train fit",
        "bundle": "python -m export bundle",
        "index": "python -m export index",
        "world": "python -m train world",
        "training-state": "python -m train fit, without --resume",
    }[kind]


def _is_kind(root: Path, kind: Kind) -> bool:
    try:
        return bool(json.loads((root / MANIFEST).read_text())["kind"] == kind)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _id_of(kind: Kind, files: dict[str, str], meta: dict[str, Any]) -> str:
    return sha256_of_json({"kind": kind, "files": files, "meta": meta})[:12]


def _link(source: str, target: str) -> None:
    """Take a file over without copying it, where the file system can."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _seal(folder: Path, kind: Kind, meta: dict[str, Any], unlisted: str | None) -> None:
    """Flush every file and write the manifest last."""
    meta = json.loads(json.dumps(meta))  # As it will be read: names of JSON are text.
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        name = path.relative_to(folder)
        if name.parts[0] != unlisted:
            files[name.as_posix()] = sha256_of(path)
    manifest = {
        "schema": SCHEMA,
        "kind": kind,
        "id": _id_of(kind, files, meta),
        "made_by": made_by(),
        "created_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "meta": meta,
        "files": files,
    }
    write_atomically(folder / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())


def _swap_in(temporary: Path, root: Path) -> None:
    """Bring a finished folder into place; the old one disappears only after that."""
    if not root.exists():
        temporary.replace(root)
    elif not _exchange(temporary, root):
        retired = root.with_name(f".{root.name}.{os.getpid()}.old")
        root.replace(retired)
        try:
            temporary.replace(root)
        except OSError:
            retired.replace(root)
            raise
        shutil.rmtree(retired, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change places in one step (Linux); False where that is not possible."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    at_cwd, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE: linux/fcntl.h, linux/fs.h.
    done = renameat2(at_cwd, os.fsencode(one), at_cwd, os.fsencode(other), exchange)
    return bool(done == 0)


def _leftovers(root: Path) -> list[Path]:
    """What writers of `root` left beside it when they were killed."""
    ours = re.compile(rf"\.{re.escape(root.name)}\.(\d+)\.(tmp|old)")
    found = [(path, ours.fullmatch(path.name)) for path in root.parent.iterdir()]
    return [path for path, match in found if match and not _is_another(int(match[1]))]


def _is_another(pid: int) -> bool:
    """Whether a process of this number lives and is not this one."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return pid != os.getpid()


def _put_back(root: Path) -> None:
    """Undo the first of two renames after a crash before the second."""
    if not root.exists():
        for retired in _leftovers(root):
            if retired.suffix == ".old" and (retired / MANIFEST).exists():
                retired.replace(root)
                return
