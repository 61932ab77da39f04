"""The folder beside an index in which it is built, and how a later run finds its way in it.

    OUT.build/imagery.mbtiles   what tiles are cut from
    OUT.build/imagery.json      what that was made of, and its sha256
    OUT.build/plan.json         everything that decides the index's tiles and embeddings
    OUT.build/parts/            embedded rows, see `export.index_parts`

Both JSON files are written when what they describe is complete, so a run that finds them goes on
where another was killed; a run that was asked for something else says what differs.
"""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_runtime.artefact import sha256_of, write_atomically
from edge_runtime.errors import ImageryError, InputError
from edge_runtime.index_format import IMAGERY
from edge_runtime.satellite_imagery import ImagerySource, Progress
from export.index_claims import claimed

WriteImagery = Callable[[Path, Progress], list[ImagerySource]]
"""Writes an `imagery.mbtiles` that does not exist yet, and says what it was made of."""

_POLL_S = 0.2


def build_folder_of(out: Path) -> Path:
    """Where an index is built: beside it, since it is moved into place."""
    out = out.resolve()
    return out.with_name(out.name + ".build")


class BuildFolder:
    """An index under construction. Several processes may work in it side by side."""

    def __init__(self, root: Path) -> None:
        """Use a folder, which may not exist yet."""
        self.root = root

    @property
    def imagery(self) -> Path:
        """The staged imagery."""
        return self.root / IMAGERY

    @property
    def parts(self) -> Path:
        """Folder of the parts."""
        return self.root / "parts"

    def stage_imagery(
        self, asked: dict[str, Any], write: WriteImagery, progress: Progress
    ) -> dict[str, Any]:
        """Make the imagery, or take over what a former run made.

        Args:
            asked: sources and options as JSON values; equal where the imagery would be.
            write: makes it.
            progress: told how far the work is.

        Returns:
            The record of what was made: `sha256`, `sources` for the manifest, `asked`.

        Raises:
            InputError: the folder holds imagery of other sources or options.
            ImageryError: the staged imagery was altered, or the sources are unusable.
        """
        existed = self.root.exists()
        self.root.mkdir(parents=True, exist_ok=True)
        asked = json.loads(json.dumps(asked))
        try:
            while not (self.root / "imagery.json").exists():
                with claimed(self.root / "imagery.claim") as mine:
                    if mine and not (self.root / "imagery.json").exists():
                        self._write_imagery(asked, write, progress)
                if not mine:
                    time.sleep(_POLL_S)
        except BaseException:
            if not existed and not any(self.root.iterdir()):
                self.root.rmdir()
            raise
        record = self._read("imagery.json")
        self._refuse_difference("imagery", record["asked"], asked)
        if sha256_of(self.imagery) != record["sha256"]:
            msg = f"{self.imagery} was altered since it was made. Give --restart to make it again"
            raise ImageryError(msg)
        return record

    def _write_imagery(
        self, asked: dict[str, Any], write: WriteImagery, progress: Progress
    ) -> None:
        temporary = self.root / f".{IMAGERY}.{os.getpid()}.tmp"
        try:
            temporary.unlink(missing_ok=True)
            sources = write(temporary, progress)
            record = {
                "asked": asked,
                "sha256": sha256_of(temporary),
                "sources": [source.to_json() for source in sources],
            }
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            temporary.replace(self.imagery)
            self._write("imagery.json", record)
        finally:
            temporary.unlink(missing_ok=True)

    def agree_on(self, plan: dict[str, Any]) -> None:
        """Record the plan, or check that it is the one this folder was begun with.

        A plan of which nothing was embedded yet is replaced.

        Raises:
            InputError: parts of another plan were embedded here.
        """
        if (self.root / "plan.json").exists():
            found = self._read("plan.json")
            if self.parts.is_dir() and any(self.parts.glob("part-*.npy")):
                self._refuse_difference("plan", found, plan)
        self._write("plan.json", plan)

    def plan(self) -> dict[str, Any]:
        """The plan, for who only puts the parts together.

        Raises:
            InputError: nothing was planned here.
        """
        if not (self.root / "plan.json").exists():
            msg = (
                f"{self.root} is not a folder in which an index is being built: it has no "
                "plan.json. Begin with: python -m export index --imagery … --shard 1/2"
            )
            raise InputError(msg)
        return self._read("plan.json")

    def sources(self) -> list[dict[str, Any]]:
        """What the staged imagery was made of, for the manifest."""
        found: list[dict[str, Any]] = self._read("imagery.json")["sources"]
        return found

    def remove(self) -> None:
        """Remove everything, in a way that a crash leaves the whole folder or rubbish."""
        for rubbish in self.root.parent.glob(f".{self.root.name}.*.old"):
            shutil.rmtree(rubbish, ignore_errors=True)
        if self.root.exists():
            away = self.root.with_name(f".{self.root.name}.{os.getpid()}.old")
            self.root.replace(away)
            shutil.rmtree(away, ignore_errors=True)

    def _refuse_difference(self, what: str, found: dict[str, Any], asked: dict[str, Any]) -> None:
        found, asked = _flat(found), _flat(asked)
        differing = [k for k in sorted(found | asked) if found.get(k) != asked.get(k)]
        if differing:
            named = "; ".join(
                f"{name} was {_short(found.get(name))}, is {_short(asked.get(name))}"
                for name in differing
            )
            msg = (
                f"{self.root} was begun with another {what} ({named}). Repeat the command it was "
                "begun with, remove the folder, or give --restart"
            )
            raise InputError(msg)

    def _read(self, name: str) -> dict[str, Any]:
        try:
            value: dict[str, Any] = json.loads((self.root / name).read_text())
        except ValueError as error:
            msg = f"{self.root / name} is not readable ({error}). Give --restart to begin again"
            raise InputError(msg) from error
        return value

    def _write(self, name: str, value: dict[str, Any]) -> None:
        write_atomically(self.root / name, (json.dumps(value, indent=1) + "\n").encode())


def _flat(value: dict[str, Any]) -> dict[str, Any]:
    """Names of what people chose, and of files, come to the top; what follows from them is left."""
    flat: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, dict):
            flat |= item
        elif name not in ("places", "places_sha256"):
            flat[name] = item
    return flat


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "…"
