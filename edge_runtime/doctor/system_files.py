"""The machine as its files tell: /proc, /sys, /etc and /dev under a root that tests make up."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


def _may_open(path: Path) -> bool:
    return os.access(path, os.R_OK | os.W_OK)


@dataclass(frozen=True, kw_only=True)
class SystemFiles:
    """Where to look."""

    root: Path = Path("/")
    """Before every path: another than / in tests."""
    may_open: Callable[[Path], bool] = field(default=_may_open)
    """Whether this user may read and write a device."""

    def path(self, absolute: str) -> Path:
        """A path of the machine."""
        return self.root / absolute.lstrip("/")

    def exists(self, absolute: str) -> bool:
        """Whether there is such a file or folder."""
        return self.path(absolute).exists()

    def text(self, absolute: str) -> str:
        """What a file says, without white space and zeros around; empty where it cannot be read."""
        try:
            return self.path(absolute).read_text(errors="replace").strip("\0 \t\r\n")
        except OSError:
            return ""

    def number(self, absolute: str) -> int | None:
        """The number a file holds; None where it does not."""
        try:
            return int(self.text(absolute))
        except ValueError:
            return None

    def each(self, folder: str, pattern: str) -> list[Path]:
        """Paths in a folder that fit a pattern, in order; none where there is no such folder."""
        return sorted(self.path(folder).glob(pattern), key=lambda path: _natural(path.name))

    @property
    def is_real(self) -> bool:
        """Whether this is the machine this process runs on, so that programs can be asked too."""
        return self.root == Path("/")

    @property
    def board(self) -> str:
        """Name of a single-board computer, as "NVIDIA Jetson Orin Nano"; empty elsewhere."""
        return self.text("/proc/device-tree/model")

    @property
    def is_jetson(self) -> bool:
        """Whether NVIDIA's own tools for the board are to be expected."""
        return "jetson" in self.board.lower() or self.exists("/etc/nv_tegra_release")


def _natural(name: str) -> tuple[str, int, str]:
    """video10 comes after video9."""
    digits = "".join(c for c in name if c.isdigit())
    return name.rstrip("0123456789"), int(digits or 0), name
