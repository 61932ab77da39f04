"""The run summary's style sheet: the look of our pages, and what only a training run has."""

from train.page_style import PAGE_STYLE

STYLE = (
    PAGE_STYLE
    + """
.badge{display:inline-block;border-radius:999px;padding:1px 11px;margin-right:9px;font-size:.86rem;
font-weight:600;border:1px solid var(--degraded);color:var(--ink)}
.badge.finished{border-color:var(--g6)}
.progress{height:8px;border-radius:4px;background:var(--hair);overflow:hidden;max-width:68ch}
.progress i{display:block;height:100%;background:var(--degraded)}
.progress.finished i{background:var(--g6)}
header p{margin-bottom:.7em}
.tiles{grid-template-columns:repeat(var(--columns),1fr)}
.tile.warns b{color:var(--lost)}
.faint{stroke-width:1;opacity:.5}
.to-come{fill:#f1f1ee}@media(prefers-color-scheme:dark){.to-come{fill:#1b2025}}
.on-top{fill:var(--soft);paint-order:stroke;stroke:var(--bg);stroke-width:4px;
stroke-linejoin:round}
.g-chance{fill:var(--g7)}.g-ground{fill:var(--g6)}.g-similarity{fill:var(--g4)}
.g-other{fill:var(--g2)}
.key.g-chance{background:var(--g7)}.key.g-ground{background:var(--g6)}
.key.g-similarity{background:var(--g4)}.key.g-other{background:var(--g2)}
.legend b{color:var(--ink);font-weight:600}
.shots{display:grid;grid-template-columns:repeat(4,minmax(0,1fr));gap:8px}
.shot{font-size:.78rem;line-height:1.35;color:var(--soft)}
.shot img{display:block;width:100%;height:auto;border-radius:6px;border:3px solid transparent;
margin-bottom:3px}
.shot b{font-weight:600;display:block}
.cards+h3{margin-top:36px}
.shot.query img{border-color:var(--hair)}
.shot.true img{border-color:var(--g6)}.shot.false img{border-color:var(--false)}
.shot.overlaps img{border-color:var(--degraded)}
.shots.long{grid-template-columns:repeat(3,minmax(0,1fr))}
.shots.long .query{grid-column:1/-1}
.card figcaption small{overflow-wrap:anywhere}
details{border:1px solid var(--hair);border-radius:12px;background:var(--card);padding:0 16px;
margin-top:14px}
summary{cursor:pointer;padding:12px 0;font-weight:600}
details>:last-child{margin-bottom:16px}
td.text{min-width:0;text-align:left}
.settings table{width:auto;min-width:min(100%,560px)}
.settings td,.settings th[scope=col]:not(:first-child){text-align:left}
@media(max-width:760px){.tiles{grid-template-columns:1fr 1fr}
.tile:last-child:nth-child(odd){grid-column:1/-1}
.shots{grid-template-columns:1fr 1fr}thead th{white-space:normal}}
"""
)
