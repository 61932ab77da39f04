"""`python -m benchmarks results` and `readme-table`: arguments, and what they print."""

import argparse
import shlex
from pathlib import Path
from typing import Any

from benchmarks.command_parts import page_path
from edge_runtime.command_line import HelpFormatter
from edge_runtime.errors import InputError

RESULTS = Path(__file__).resolve().parent / "results"
README = RESULTS.parent.parent / "README.md"


def add_results(add: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser: argparse.ArgumentParser = add.add_parser(
        "results",
        help="rows of any command as one HTML page and a Markdown table",
        description="Rows of any command as one HTML page that needs no network, and as a Markdown "
        "table. `report` shows flights on their map; this shows what was measured.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("rows", type=Path, nargs="*", help="files of rows, .jsonl")
    parser.add_argument(
        "--flight",
        nargs="+",
        action="append",
        default=[],
        metavar=("LOG", "TRUTH"),
        help="draw a flight over time: log (.jsonl), truth (.csv) where there is one; repeatable",
    )
    parser.add_argument("--title", default="Benchmark results", help="headline of the page")
    parser.add_argument("--out", type=page_path, help="HTML file to write")
    parser.add_argument("--markdown", type=page_path, help="Markdown file to write")
    parser.set_defaults(run=results)


def add_readme_table(add: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser: argparse.ArgumentParser = add.add_parser(
        "readme-table",
        help="the README's table of measurements, from rows",
        description="The README's table of measurements: made from benchmarks/results, or checked "
        "against it.",
        formatter_class=HelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--check", action="store_true", help="fail where README and rows differ")
    what.add_argument("--write", action="store_true", help="put the rows' table into the README")
    parser.add_argument("--readme", type=Path, default=README, help="file with the table")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of rows")
    parser.set_defaults(run=readme_table)


def results(args: argparse.Namespace) -> None:
    """Run the command."""
    from benchmarks.results_page.markdown_table import markdown_table, ranges
    from benchmarks.results_page.page import doubtful, page
    from benchmarks.results_page.sources import Results, read_results
    from benchmarks.results_page.timeline import read_flight
    from edge_runtime.artefact import write_atomically

    if args.out is None and args.markdown is None:
        msg = "nothing to write; give --out page.html, --markdown table.md, or both"
        raise InputError(msg)
    if odd := next((names for names in args.flight if len(names) > 2), None):
        msg = f"--flight has {len(odd)} files; expected a log, and a truth where there is one"
        raise InputError(msg)
    if not args.rows and not args.flight:
        msg = "nothing to show; give files of rows (.jsonl), --flight LOG [TRUTH], or both"
        raise InputError(msg)
    flights = [
        read_flight(Path(names[0]), Path(names[1]) if len(names) > 1 else None)
        for names in args.flight
    ]
    found = read_results(args.rows) if args.rows else Results(files=(), measured=(), not_run=())
    if args.markdown is not None:
        if not found.measured:
            msg = "there are no measurements for --markdown; expected rows of kind measurement"
            raise InputError(msg)
        parts = [markdown_table(found.measured), *ranges(found.measured)]
        write_atomically(args.markdown, ("\n\n".join(parts) + "\n").encode())
        print(f"{args.markdown}: {len(found.measured)} measurements")
    if args.out is not None:
        html = page(found, flights, title=args.title, command_line=args.command_line)
        write_atomically(args.out, html.encode())
        rows = sum(f.rows for f in found.files)
        print(
            f"{args.out}: {rows} rows, {len(found.measured)} measurements of which "
            f"{len(doubtful(found.measured))} to be doubted, {len(found.not_run)} not possible, "
            f"{len(flights)} flights; {args.out.stat().st_size / 1024:.0f} KiB, needs no network"
        )
        print(f"next: open {shlex.quote(str(args.out))} in a browser")


def readme_table(args: argparse.Namespace) -> None:
    """Run the command."""
    from benchmarks import readme_table as table

    if not args.results.is_dir():
        msg = f"{args.results} is not a folder; expected one of rows, as benchmarks/results"
        raise InputError(msg)
    if args.check:
        table.check(args.readme, args.results)
        print(f"the table of {args.readme} is that of the rows in {args.results}")
        return
    changed = table.write(args.readme, args.results)
    print(f"{args.readme}: {'written' if changed else 'is right already'}")
    for name in table.unexplained(args.results):
        print(f"{args.results / 'README.md'} has no command of {name}; add a section ## {name}")
