"""A parser of arguments whose complaints are one line each."""

import argparse
import difflib
import re
from typing import NoReturn

from edge_runtime.errors import InputError


class OneLineParser(argparse.ArgumentParser):
    """Raises instead of printing its usage; subparsers are of this class too."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where to read on.

        Raises:
            InputError: always.
        """
        msg = f"{message[0].lower()}{message[1:]}; see {self.prog} --help"
        raise InputError(msg)

    def require_known(self, unknown: list[str]) -> None:
        """Refuse arguments that nobody takes, naming the nearest option that there is.

        Args:
            unknown: what was left over.

        Raises:
            InputError: anything was.
        """
        if not unknown:
            return
        options = re.findall(r"--[a-z][a-z0-9-]*", self.format_usage())
        near = difflib.get_close_matches(unknown[0].partition("=")[0], options, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        self.error(f"unknown {' '.join(unknown)}{hint}")
