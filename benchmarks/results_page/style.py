"""The results page's style sheet and its one script: the look of our pages, colours of runtimes."""

import base64
import hashlib

from benchmarks.report_style import STYLE as REPORT_STYLE

RUNTIMES = (
    "torch-eager", "torch-compiled", "ort-cpu", "openvino", "ort-cuda", "tensorrt", "ort-tensorrt",
    "tensorrt-no-graph",
)  # fmt: skip
"""Have the same colour on every page; others take what is left."""
_COLOURS = 8
SHAPES = {"fp32": "circle", "fp16": "square", "int8": "triangle", "bf16": "diamond"}
"""Marks of precisions; their lines are whole, dashed, dotted and both."""

_RESULTS = """
body{max-width:1320px}
.r1{--c:#6b7580}.r2{--c:#c9186b}.r3{--c:#1b6ac9}.r4{--c:#d98200}.r5{--c:#7a4fb5}.r6{--c:#2f8f5b}
.r7{--c:#d9480f}.r8{--c:#3a97bd}
@media(prefers-color-scheme:dark){.r1{--c:#a3adb8}.r2{--c:#ff5fa2}.r3{--c:#6db3ff}.r4{--c:#ffb340}
.r5{--c:#b79af0}.r6{--c:#5cc18d}.r7{--c:#ff7a45}.r8{--c:#7fd0ee}}
.line[class*=" r"]{stroke:var(--c)}
.line.fp16{stroke-dasharray:7 4}.line.int8{stroke-dasharray:2 3}
.line.bf16{stroke-dasharray:8 3 2 3}
.mark{fill:var(--c);stroke:var(--card);stroke-width:1.2}
.key[class*=" r"]{background:var(--c)}
svg.sample{display:inline-block;width:28px;height:12px;margin-right:6px;vertical-align:middle}
.front{fill:none;stroke:var(--ref);stroke-width:1.4;stroke-dasharray:4 4}
.on-top{paint-order:stroke;stroke:var(--bg);stroke-width:4px;stroke-linejoin:round;fill:var(--ink);
font-size:12px}
.late{fill:var(--false)}
.key.g-other{background:var(--g7)}
.results{font-size:.86rem}.results th,.results td{padding:6px 8px}
.results td small{display:block;margin:0;line-height:1.2}
.numbers{list-style:none;margin:8px 0 0;padding:0;color:var(--soft);font-size:.86rem;
column-width:25em;column-gap:32px}
.numbers li{break-inside:avoid;margin-bottom:2px;padding-left:34px;text-indent:-34px}
.results th:first-child,.results td:first-child{padding-left:0}
.results{border-collapse:separate;border-spacing:0}.numbers b{color:var(--ink);font-weight:600}
.doubt{color:var(--false);font-weight:650;font-size:.72em;vertical-align:super;line-height:0;
text-decoration:none;margin-left:2px}
.doubts{color:var(--soft);font-size:.88rem;margin:10px 0 0;padding-left:1.4em;max-width:75ch}
.doubts li::marker{color:var(--false);font-weight:650}
.doubts+.scroll,.doubts+figure{margin-top:28px}
td.what{text-align:left}th.what{text-align:left}
.results thead th{font-weight:600}
.sorts{all:unset;cursor:pointer}.sorts:hover{color:var(--ink)}
.sorts:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
th[aria-sort=ascending] .sorts::after{content:" \\2191"}
th[aria-sort=descending] .sorts::after{content:" \\2193"}
details{margin-top:24px}summary{cursor:pointer;font-weight:600}
section h3{margin-top:28px}.pair h3{margin-top:0}
.machine{margin:20px 0 0;color:var(--ink);font-weight:600}
tbody tr:hover{background:var(--card)}
@media screen and (max-width:760px){
.results th:first-child,.results td:first-child{position:sticky;left:0;
background:var(--bg);max-width:11em;white-space:normal;z-index:1}
.numbers{column-width:auto}}
@media print{@page{size:A4 landscape;margin:12mm}body{padding:0;font-size:11pt;background:#fff}
.results{font-size:6.6pt}.results th,.results td{padding:2px 4px}
.results thead th{white-space:normal}
.scroll{overflow:visible}
details::details-content{content-visibility:visible;display:block}
.pair{grid-template-columns:1fr 1fr}.tiles{grid-template-columns:repeat(4,1fr)}
.wide{display:block}.narrow{display:none}
.tile b{font-size:1.4rem}section{margin-top:28px;break-inside:auto}h2,h3{break-after:avoid}
tr{break-inside:avoid}}
"""

STYLE = REPORT_STYLE + _RESULTS

SCRIPT = """
for (const table of document.querySelectorAll('table.sortable')) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => {
    const button = document.createElement('button');
    button.className = 'sorts';
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener('click', () => {
      const up = head.getAttribute('aria-sort') !== 'ascending';
      heads.forEach(other => other.removeAttribute('aria-sort'));
      head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
      const value = row => row.cells[column].dataset.v;
      const compare = (a, b) => {
        const x = value(a), y = value(b);
        if (x === '' || y === '') return (x === '') - (y === '');
        const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
        return up ? order : -order;
      };
      body.append(...[...body.rows].sort(compare));
    });
  });
}
"""
"""Sorts a table by the column whose head is clicked; cells without a value stay last."""

POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-"
    + base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    + "'"
)
"""Content Security Policy: nothing from outside, and no other script than this one."""


def runtime_css(name: str, names: list[str]) -> str:
    """Class of a runtime's colour.

    Args:
        name: of the runtime.
        names: all on the page.
    """
    known = [*RUNTIMES, *sorted(set(names) - set(RUNTIMES))]
    return f"r{known.index(name) % _COLOURS + 1}"


def sample(css: str, shape: str) -> str:
    """A stroke and a mark for a legend.

    Args:
        css: classes of colour and dashes.
        shape: of the mark.
    """
    d = {
        "diamond": "M14 1L19 6L14 11L9 6Z",
        "square": "M10 2h8v8h-8Z",
        "triangle": "M14 1L19 10H9Z",
    }.get(shape, "M10 6a4 4 0 1 0 8 0a4 4 0 1 0-8 0Z")
    return (
        '<svg class="sample" viewBox="0 0 28 12" aria-hidden="true">'
        f'<path class="line {css}" d="M0 6H28"/><path class="mark {css}" d="{d}"/></svg>'
    )
