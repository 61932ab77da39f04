import os
from pathlib import Path

import pytest

from edge_runtime import verified_files
from edge_runtime.artefact import sha256_of, writing_artefact
from edge_runtime.errors import IndexFolderError
from edge_runtime.verified_files import STAMPS, open_stamped


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(verified_files, "STAMPED_FROM_BYTES", 600)
    with writing_artefact(tmp_path / "index", "index", {}) as folder:
        (folder / "crashes").write_bytes(b"graph" * 100)
        (folder / "large").write_bytes(b"vectors" * 100)
    return tmp_path / "index"


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of files in the order they are hashed."""
    names: list[str] = []

    def counted(path: Path) -> str:
        names.append(path.name)
        return sha256_of(path)

    monkeypatch.setattr(verified_files, "sha256_of", counted)
    return names


def opened(root: Path) -> None:
    open_stamped(root, "index", always=("crashes",), error=IndexFolderError)


def test_large_files_are_hashed_once_and_dangerous_ones_always(
    root: Path, hashed: list[str]
) -> None:
    opened(root)
    assert sorted(hashed) == ["crashes", "large"]
    opened(root)
    opened(root)
    assert sorted(hashed) == ["crashes", "crashes", "crashes", "large"]


def test_small_files_are_always_hashed_and_leave_nothing(
    root: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verified_files, "STAMPED_FROM_BYTES", 701)
    opened(root)
    opened(root)
    assert sorted(hashed) == ["crashes", "crashes", "large", "large"]
    assert not (root / STAMPS).exists()


@pytest.mark.parametrize("name", ["crashes", "large"])
@pytest.mark.parametrize("first", [False, True], ids=["never opened", "opened before"])
def test_an_altered_file_is_refused_even_with_its_old_time(
    root: Path, name: str, first: bool
) -> None:
    if first:
        opened(root)
    path = root / name
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[7] ^= 1
    path.write_bytes(bytes(data))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(IndexFolderError, match=rf"{name} has digest .* Copy the index folder"):
        opened(root)


def test_a_file_with_another_length_or_no_file_is_refused(root: Path) -> None:
    opened(root)
    os.truncate(root / "large", 3)
    with pytest.raises(IndexFolderError, match="large has digest"):
        opened(root)
    (root / "large").unlink()
    with pytest.raises(IndexFolderError, match=r"large cannot be read \(No such file"):
        opened(root)


def test_a_file_that_was_refused_is_not_taken_next_time(root: Path) -> None:
    (root / "large").write_bytes(b"other")
    for _ in range(2):
        with pytest.raises(IndexFolderError, match="large has digest"):
            opened(root)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"large": 3}', '{"large": null}', "\x00"])
def test_stamps_that_make_no_sense_are_no_stamps(
    root: Path, hashed: list[str], content: str
) -> None:
    (root / STAMPS).write_text(content)
    opened(root)
    assert "large" in hashed


def test_another_manifest_makes_stamps_void(root: Path, hashed: list[str]) -> None:
    opened(root)
    with writing_artefact(root, "index", {}) as folder:
        (folder / "crashes").write_bytes(b"new")
        (folder / "large").write_bytes(b"new")
    hashed.clear()
    opened(root)
    assert sorted(hashed) == ["crashes", "large"]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_folder_that_cannot_be_written_opens(root: Path, hashed: list[str]) -> None:
    root.chmod(0o555)
    try:
        opened(root)
        opened(root)
    finally:
        root.chmod(0o755)
    assert hashed.count("large") == 2


def test_a_file_that_changes_while_it_is_hashed_is_hashed_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def touched(path: Path) -> str:
        digest = sha256_of(path)
        if path.name == "large":
            path.write_bytes(b"x" + path.read_bytes()[1:])
        return digest

    monkeypatch.setattr(verified_files, "sha256_of", touched)
    opened(root)
    monkeypatch.setattr(verified_files, "sha256_of", sha256_of)
    with pytest.raises(IndexFolderError, match="large has digest"):
        opened(root)
