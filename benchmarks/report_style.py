"""The flight report's style sheet: the look of our pages, and what only a flight has."""

from train.page_style import PAGE_STYLE

_FLIGHT = """
.map{position:relative;border-radius:12px;overflow:hidden;background:#2a2f35}
.map img{display:block;width:100%;height:auto}
.map>svg:not(.north){position:absolute;inset:0;height:100%}
.scale{position:absolute;left:14px;bottom:12px;background:#000a;border-bottom:3px solid #fff;
color:#fff;font-size:12px;line-height:1;text-align:center;padding:5px 0;font-weight:600;
border-radius:4px 4px 0 0}
.north{position:absolute;right:12px;top:12px;width:24px!important;height:40px!important;fill:#fff;
stroke:#0009;stroke-width:1;paint-order:stroke;font:700 12px sans-serif}
.north.small{width:26px!important;height:26px!important;right:6px;top:6px;stroke-width:2}
.north text{fill:#fff}
.map path,.halo{vector-effect:non-scaling-stroke}
.casing{fill:none;stroke:#000;stroke-opacity:.55;stroke-width:4.5;stroke-linejoin:round}
.truth{fill:none;stroke:#fff;stroke-width:2;stroke-linejoin:round}
.accuracy{fill:#4aa8ff14;stroke:#bfe0ff;stroke-opacity:.38;stroke-width:.8}
.halo{fill:none;stroke-linecap:round;stroke:#0b0e11!important;stroke-width:8}
.few .dots{stroke-width:9}.few .halo{stroke-width:12}
.halo.s-false,.start{stroke:#fff!important;stroke-width:11}
.start{fill:none;stroke-linecap:round;stroke-width:13}
.s-ok{stroke:var(--ok)}.s-false{stroke:var(--false)}.s-degraded{stroke:var(--degraded)}
.s-abstain{stroke:var(--abstain)}.s-lost{stroke:var(--lost)}.s-missing{stroke:var(--missing)}
.map .s-ok{stroke:#45b0ff}.map .s-false{stroke:#ff2f87}.map .s-degraded{stroke:#ffb340}
.map .s-abstain{stroke:#c3c9cf}.map .s-lost{stroke:#ff6a2b}.map .s-missing{stroke:#b895f0}
.f{stroke:none}
.f.s-ok{fill:var(--ok)}.f.s-false{fill:var(--false)}.f.s-degraded{fill:var(--degraded)}
.f.s-abstain{fill:var(--abstain)}.f.s-lost{fill:var(--lost)}.f.s-missing{fill:var(--missing)}
.g-capture{fill:var(--g1)}.g-ground-view{fill:var(--g2)}.g-encode{fill:var(--g3)}
.g-search{fill:var(--g4)}.g-refine{fill:var(--g5)}.g-track{fill:var(--g6)}.g-other{fill:var(--g7)}
.key.s-ok{background:var(--ok)}.key.s-false{background:var(--false)}
.key.s-degraded{background:var(--degraded)}.key.s-abstain{background:var(--abstain)}
.key.s-lost{background:var(--lost)}.key.s-missing{background:var(--missing)}
.key.line{background:#fff;box-shadow:0 0 0 1.5px #5c646e}
.key.line[class*=" c"]{box-shadow:none}
.key.circle{border:1.5px solid var(--ok);opacity:.7}
.key.g-capture{background:var(--g1)}.key.g-ground-view{background:var(--g2)}
.key.g-encode{background:var(--g3)}.key.g-search{background:var(--g4)}
.key.g-refine{background:var(--g5)}.key.g-track{background:var(--g6)}
.two{display:grid;grid-template-columns:1fr 1fr;gap:6px}
.two img{display:block;width:100%;height:auto;border-radius:6px}
.card .map{border-radius:6px}
@media(max-width:760px){.map{border-radius:8px}.halo{stroke-width:6}
.few .dots{stroke-width:6}.few .halo{stroke-width:8.5}}
"""

STYLE = PAGE_STYLE + _FLIGHT
