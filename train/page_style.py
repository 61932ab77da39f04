"""The look that our pages share: light and dark, wide and narrow, nothing from outside."""

PAGE_STYLE = """
:root{color-scheme:light dark;--bg:#fbfbf9;--card:#fff;--ink:#16191d;--soft:#5c646e;--hair:#e3e4e0;
--accent:#1b6ac9;--ok:#1b7fd6;--false:#c9186b;--degraded:#e08a00;--abstain:#8b939c;--lost:#d9480f;
--missing:#7a4fb5;--grid:#e6e7e3;--ref:#a7adb4;--band:#1b7fd622;
--g1:#9aa3ad;--g2:#58a6c9;--g3:#1b6ac9;--g4:#7a4fb5;--g5:#e08a00;--g6:#3f9c6d;--g7:#c4c9ce}
@media(prefers-color-scheme:dark){:root{--bg:#111417;--card:#191d21;--ink:#eceef0;--soft:#9aa3ad;
--hair:#2b3137;--accent:#6db3ff;--ok:#4aa8ff;--false:#ff5fa2;--degraded:#ffb340;--abstain:#8b939c;
--lost:#ff7a45;--missing:#a683e0;--grid:#272d33;--ref:#59626b;--band:#4aa8ff2b;
--g1:#737d87;--g2:#6fbfe0;--g3:#4a90e2;--g4:#a683e0;--g5:#ffb340;--g6:#5cc18d;--g7:#4a525a}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0 auto;max-width:1120px;padding:40px 24px 56px;background:var(--bg);color:var(--ink);
font:16px/1.55 ui-sans-serif,system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",
"Liberation Sans",Arial,sans-serif;font-variant-numeric:tabular-nums}
h1{font-size:clamp(1.8rem,4.5vw,2.6rem);line-height:1.12;letter-spacing:-.02em;margin:0 0 .4em;
text-wrap:balance}
h2{font-size:1.45rem;letter-spacing:-.012em;line-height:1.2;margin:0 0 .35em}
h3{font-size:1rem;margin:0 0 .6em}
p{margin:0 0 1em;max-width:68ch;color:var(--soft)}
header p{font-size:1.08rem}
section{margin-top:56px}
small{color:var(--soft);font-size:.86em}
figure{margin:0 0 24px}
figcaption{color:var(--soft);font-size:.88rem;margin-top:8px;max-width:75ch}
svg{display:block;width:100%;height:auto;overflow:visible}
.tiles{display:grid;grid-template-columns:repeat(4,1fr);gap:12px;margin:28px 0 0}
.tile{background:var(--card);border:1px solid var(--hair);border-radius:12px;padding:14px 16px}
.tile dt{font-size:.86rem;color:var(--soft)}
.tile dd{margin:0}
.tile b{display:block;font-size:1.85rem;font-weight:650;line-height:1.2;letter-spacing:-.02em}
.tile span{display:block;font-size:.8rem;color:var(--soft);line-height:1.35;margin-top:2px}
.dots{fill:none;stroke-linecap:round;stroke-width:5.5;vector-effect:non-scaling-stroke}
text{fill:var(--soft)}.strong{fill:var(--ink);font-weight:600}
.ref-label{fill:var(--soft)}
.grid{stroke:var(--grid);stroke-width:1}.ref{stroke:var(--ref);stroke-width:1;stroke-dasharray:4 4}
.band{fill:var(--band)}
.line{fill:none;stroke-width:2.2;stroke-linejoin:round;vector-effect:non-scaling-stroke}
.c0{stroke:var(--accent)}.c1{stroke:var(--accent)}.c2{stroke:var(--degraded)}
.c3{stroke:var(--g6)}.c4{stroke:var(--false)}.c5{stroke:var(--g4)}.c6{stroke:var(--g2)}
.dots.c0{stroke-width:9}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;list-style:none;margin:0 0 6px;padding:0}
.key{display:inline-block;width:11px;height:11px;border-radius:50%;margin-right:7px}
.key.line{height:4px;width:20px;border-radius:2px;vertical-align:middle}
.key.c0,.key.c1{background:var(--accent)!important}.key.c2{background:var(--degraded)!important}
.key.c3{background:var(--g6)!important}.key.c4{background:var(--false)!important}
.key.c5{background:var(--g4)!important}.key.c6{background:var(--g2)!important}
.key[class*=g-]{border-radius:3px}
.pair{display:grid;grid-template-columns:minmax(0,1fr) minmax(0,1fr);gap:24px 40px;
align-items:start;margin-top:20px}
.cards{display:grid;grid-template-columns:minmax(0,1fr) minmax(0,1fr);gap:20px}
.card{background:var(--card);border:1px solid var(--hair);border-radius:12px;padding:10px;margin:0}
.card figcaption{padding:0 4px}.card b{color:var(--ink)}.card small{display:block}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9rem}
caption{text-align:left;white-space:normal;color:var(--soft);font-size:.88rem;padding-bottom:8px;
max-width:75ch}
table+.scroll,.scroll+.scroll,.pair+.scroll{margin-top:28px}
th,td{padding:6px 10px;border-bottom:1px solid var(--hair);text-align:right;white-space:nowrap}
th[scope=row],tr>:first-child{text-align:left;padding-left:0;font-weight:500}
thead th{font-weight:600;color:var(--soft)}
td small,th small{display:inline-block;min-width:4.6em;font-weight:400;margin-left:.4em}
th small{margin:0}
td.text{white-space:normal;text-align:left;min-width:15em}
.narrow{display:none}
footer{margin-top:64px;border-top:1px solid var(--hair);padding-top:28px;font-size:.9rem}
footer h2{font-size:1.1rem}
footer dl{margin:0;display:grid;gap:6px}
footer dl div{display:grid;grid-template-columns:9em 1fr;gap:12px}
footer dt{color:var(--soft)}footer dd{margin:0;overflow-wrap:anywhere}
pre{background:var(--card);border:1px solid var(--hair);border-radius:8px;padding:12px;
white-space:pre-wrap;overflow-wrap:anywhere;font:.82rem/1.5 ui-monospace,SFMono-Regular,Menlo,
Consolas,"Liberation Mono",monospace}
@media(max-width:760px){body{padding:24px 16px 40px}.tiles{grid-template-columns:1fr 1fr;gap:8px}
.tile{padding:10px 12px}.tile b{font-size:1.5rem}.pair,.cards{grid-template-columns:minmax(0,1fr)}
.wide{display:none}.narrow{display:block}section{margin-top:40px}
footer dl div{grid-template-columns:1fr;gap:0}.dots{stroke-width:4}
th,td{padding:6px 8px;font-size:.84rem}
td small{display:block;margin:0}th[scope=row]{white-space:normal;min-width:5.8em}
table{font-size:.84rem}caption{max-width:calc(100vw - 32px);position:sticky;left:0}}
@media print{body{max-width:none}section,figure,.card{break-inside:avoid}}
"""
"""A page's own rules come after these, its narrow ones too."""
