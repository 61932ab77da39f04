import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.artefact import (
    MANIFEST,
    Manifest,
    open_artefact,
    read_manifest,
    sha256_of,
    sha256_of_json,
    write_atomically,
    writing_artefact,
)
from edge_runtime.errors import ArtefactError, BundleError


def write(root: Path, text: str = "first", meta: dict[str, Any] | None = None) -> Manifest:
    with writing_artefact(root, "bundle", {"n": 1} if meta is None else meta) as folder:
        (folder / "a.bin").write_bytes(text.encode() * 100)
        (folder / "deep").mkdir()
        (folder / "deep" / "b.bin").write_bytes(b"\x00\x01\x02")
    return open_artefact(root, "bundle")


def write_half(root: Path, failure: type[BaseException]) -> None:
    with writing_artefact(root, "bundle", {}) as folder:
        (folder / "half.bin").write_bytes(b"half")
        raise failure


def contents(folder: Path) -> dict[str, bytes]:
    files = [p for p in folder.rglob("*") if p.is_file()]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def edit_manifest(root: Path, **changes: Any) -> None:
    value = json.loads((root / MANIFEST).read_text())
    (root / MANIFEST).write_text(json.dumps(value | changes))


def test_what_was_written_is_what_is_opened(tmp_path: Path) -> None:
    meta = {"shape": [3, 4], "name": "é", "none": None}
    manifest = write(tmp_path / "out", meta=meta)
    assert manifest.kind == "bundle"
    assert manifest.meta == meta
    assert sorted(manifest.files) == ["a.bin", "deep/b.bin"]


def test_the_same_content_has_the_same_id_wherever_it_lies(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one"), write(tmp_path / "elsewhere" / "two")
    assert one.id == two.id
    assert len(one.id) == 12


def test_another_byte_another_meta_or_another_name_is_another_id(tmp_path: Path) -> None:
    ids = {write(tmp_path / "one").id, write(tmp_path / "two", "second").id}
    ids.add(write(tmp_path / "three", meta={"n": 2}).id)
    with writing_artefact(tmp_path / "four", "bundle", {"n": 1}) as folder:
        (folder / "renamed.bin").write_bytes(b"first" * 100)
    ids.add(open_artefact(tmp_path / "four", "bundle").id)
    assert len(ids) == 4


def test_a_new_artefact_replaces_the_old_one_whole(tmp_path: Path) -> None:
    write(tmp_path / "out")
    with writing_artefact(tmp_path / "out", "bundle", {}) as folder:
        (folder / "only.bin").write_bytes(b"x")
    assert sorted(contents(tmp_path / "out")) == [MANIFEST, "only.bin"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_meta_added_inside_the_block_is_sealed(tmp_path: Path) -> None:
    meta: dict[str, Any] = {}
    with writing_artefact(tmp_path / "out", "index", meta) as folder:
        (folder / "a").write_bytes(b"a")
        meta["tiles"] = 7
    assert read_manifest(tmp_path / "out", "index").meta == {"tiles": 7}


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failure_in_the_block_leaves_the_old_folder_and_nothing_else(
    tmp_path: Path, failure: type[BaseException]
) -> None:
    write(tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(failure):
        write_half(tmp_path / "out", failure)
    assert contents(tmp_path / "out") == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_meta_that_is_not_json_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(TypeError), writing_artefact(tmp_path / "out", "bundle", {"p": tmp_path}):
        pass
    assert contents(tmp_path / "out") == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_failed_rename_puts_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "out")
    before = contents(tmp_path / "out")
    rename = Path.replace

    def fails_for_the_new_folder(self: Path, target: Path) -> Path:
        if self.suffix == ".tmp" and self.is_dir():
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr("edge_runtime.artefact._exchange", lambda *_: False)
    monkeypatch.setattr(Path, "replace", fails_for_the_new_folder)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "out", "second")
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize(
    "point",
    [
        "in the block",
        "after sealing",
        pytest.param(
            "between the renames",
        ),
    ],
)
def test_a_killed_process_leaves_the_old_folder_whole(tmp_path: Path, point: str) -> None:
    write(tmp_path / "out")
    before = contents(tmp_path / "out")
    program = f"""
import os, signal
from pathlib import Path
from edge_runtime import artefact
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
rename = Path.replace
def dies_for_the_new_folder(self, target):
    die() if self.suffix == ".tmp" and self.is_dir() else rename(self, target)
if {point!r} == "between the renames":
    artefact._exchange = lambda *_: False
    Path.replace = dies_for_the_new_folder
if {point!r} == "after sealing":
    artefact._swap_in = die
with artefact.writing_artefact(Path({str(tmp_path / "out")!r}), "bundle", {{}}) as folder:
    (folder / "half.bin").write_bytes(b"half")
    if {point!r} == "in the block":
        die()
"""
    died = subprocess.run([sys.executable, "-c", program], check=False, env=_env())
    assert died.returncode == -9
    open_artefact(tmp_path / "out", "bundle")
    assert contents(tmp_path / "out") == before
    write(tmp_path / "out", "third")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def _env() -> dict[str, str]:
    """The child imports the same edge_runtime: the checkout's or the wheel's."""
    import edge_runtime.artefact

    home = str(Path(edge_runtime.artefact.__file__).parents[1])
    return dict(os.environ) | {"PYTHONPATH": home}


@given(st.data())
def test_a_flipped_byte_in_any_file_is_found_and_named(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root = tmp_path_factory.getbasetemp() / "flipped"
    write(root)
    name = data.draw(st.sampled_from(["a.bin", "deep/b.bin"]))
    content = bytearray((root / name).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (root / name).write_bytes(bytes(content))
    with pytest.raises(ArtefactError, match=rf"{name} has digest .* Copy the bundle folder again"):
        open_artefact(root, "bundle")


def test_meta_that_was_altered_is_found(tmp_path: Path) -> None:
    write(tmp_path / "out")
    edit_manifest(tmp_path / "out", meta={"n": 2})
    with pytest.raises(ArtefactError, match="Copy the bundle folder again"):
        open_artefact(tmp_path / "out", "bundle")


def test_the_digest_of_a_known_file_is_the_published_one(tmp_path: Path) -> None:
    """FIPS 180-2, appendix B.1: the message "abc"."""
    (tmp_path / "abc").write_bytes(b"abc")
    published = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(tmp_path / "abc") == published


def test_a_file_longer_than_one_chunk_is_digested_whole(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(b"a" * 1_000_000 * 2)
    (tmp_path / "cut").write_bytes(b"a" * (1 << 20))
    assert sha256_of(tmp_path / "long") != sha256_of(tmp_path / "cut")


def test_the_digest_of_json_does_not_depend_on_the_order_of_names() -> None:
    assert sha256_of_json({"a": 1, "b": [2]}) == sha256_of_json({"b": [2], "a": 1})
    assert sha256_of_json([1, 2]) != sha256_of_json([2, 1])


def test_a_single_file_is_replaced_and_its_folder_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.json"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["file.json"]


def test_a_missing_folder_is_refused_with_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"not a bundle folder.*python -m export bundle"):
        open_artefact(tmp_path / "nowhere", "bundle")


def test_another_kind_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "out")
    with pytest.raises(ArtefactError, match=r"is a bundle folder; expected an index.*export index"):
        open_artefact(tmp_path / "out", "index")


def test_another_schema_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "out")
    edit_manifest(tmp_path / "out", schema=2)
    with pytest.raises(ArtefactError, match=r"schema 2; this skyfix reads 1. Make it again"):
        open_artefact(tmp_path / "out", "bundle")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param('{"schema": 1, "kind": "bun', id="truncated"),
        pytest.param("[]", id="a list"),
        pytest.param("null", id="null"),
        pytest.param('{"schema": 1}', id="without the rest"),
    ],
)
def test_an_unreadable_manifest_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    write(tmp_path / "out")
    (tmp_path / "out" / MANIFEST).write_text(text)
    with pytest.raises(ArtefactError, match=r"not a readable manifest.*Copy the folder") as caught:
        open_artefact(tmp_path / "out", "bundle")
    assert "\n" not in str(caught.value)


def test_a_manifest_of_arbitrary_bytes_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "out")
    (tmp_path / "out" / MANIFEST).write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ArtefactError, match="not a readable manifest"):
        open_artefact(tmp_path / "out", "bundle")


@pytest.mark.parametrize("changes", [{"files": []}, {"files": "a.bin"}, {"files": {"a.bin": 3}}])
def test_a_manifest_with_values_of_another_type_is_refused(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    write(tmp_path / "out")
    edit_manifest(tmp_path / "out", **changes)
    with pytest.raises(ArtefactError):
        open_artefact(tmp_path / "out", "bundle")


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path / "out")
    (tmp_path / "out" / "deep" / "b.bin").unlink()
    with pytest.raises(ArtefactError, match=r"deep/b\.bin cannot be read .*Copy the bundle folder"):
        open_artefact(tmp_path / "out", "bundle")


def test_a_file_the_manifest_does_not_list_is_not_believed(tmp_path: Path) -> None:
    manifest = write(tmp_path / "out")
    assert manifest.path_of(tmp_path / "out", "a.bin") == tmp_path / "out" / "a.bin"
    (tmp_path / "out" / "smuggled.bin").write_bytes(b"in")
    with pytest.raises(BundleError, match=r"does not list smuggled\.bin.*python -m export bundle"):
        manifest.path_of(tmp_path / "out", "smuggled.bin", error=BundleError)


def test_names_in_meta_that_are_numbers_do_not_spoil_the_id(tmp_path: Path) -> None:
    """JSON makes text of them, and text sorts otherwise: "10" before "2"."""
    meta: dict[Any, Any] = {"counts": {2: "b", 10: "a"}}
    assert write(tmp_path / "out", meta=meta).meta == {"counts": {"2": "b", "10": "a"}}


def test_what_a_living_process_is_writing_is_left_alone(tmp_path: Path) -> None:
    living = tmp_path / f".out.{os.getppid()}.tmp"
    dead = tmp_path / ".out.999999999.tmp"
    for folder in (living, dead):
        folder.mkdir()
    write(tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == [living.name, "out"]


def test_the_error_is_of_the_kind_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        open_artefact(tmp_path, "bundle", error=BundleError)


@pytest.mark.parametrize("there", ["a file", "a foreign folder", "another kind"])
def test_what_is_not_an_artefact_of_this_kind_is_never_overwritten(
    tmp_path: Path, there: str
) -> None:
    root = tmp_path / "out"
    if there == "a file":
        root.write_text("precious")
    elif there == "a foreign folder":
        root.mkdir()
        (root / "thesis.txt").write_text("precious")
    else:
        write(root)
    before = root.read_bytes() if root.is_file() else contents(root)
    refused = pytest.raises(ArtefactError, match="is not an index folder; remove it or choose")
    with refused, writing_artefact(root, "index", {}) as _:
        pytest.fail("the block must not run")
    assert (root.read_bytes() if root.is_file() else contents(root)) == before


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert write(tmp_path / "out").meta == {"n": 1}


def test_an_unlisted_folder_is_taken_over_and_may_change_later(tmp_path: Path) -> None:
    root = tmp_path / "bundle"
    with writing_artefact(root, "bundle", {}) as folder:
        (folder / "a.txt").write_text("one")
    (root / "engines").mkdir()
    (root / "engines" / "x.engine").write_bytes(b"plan")
    first = open_artefact(root, "bundle")
    with writing_artefact(root, "bundle", {}, unlisted="engines") as folder:
        (folder / "a.txt").write_text("one")
    assert (root / "engines" / "x.engine").read_bytes() == b"plan"
    manifest = open_artefact(root, "bundle")
    assert manifest.files == first.files
    assert manifest.id == first.id
    (root / "engines" / "x.engine").write_bytes(b"another")
    assert open_artefact(root, "bundle").id == first.id


def test_an_unlisted_folder_made_anew_is_not_listed_either(tmp_path: Path) -> None:
    with writing_artefact(tmp_path / "bundle", "bundle", {}, unlisted="engines") as folder:
        (folder / "engines").mkdir()
        (folder / "engines" / "y.engine").write_bytes(b"plan")
    assert open_artefact(tmp_path / "bundle", "bundle").files == {}
    assert (tmp_path / "bundle" / "engines" / "y.engine").exists()
