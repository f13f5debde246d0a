"""The report's style sheet: light, dark, and paper.

Path: **style** → page. Blue and orange are told apart by people who do not see red and green.
"""

CSS = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #5d6878; --page: #fff; --card: #f5f7fa; --grid: #dfe4ea;
  --blue: #1f6fd6; --orange: #d9730d;
  --red: #c62f3b; --green: #1d8348; --violet: #7a55c7; --teal: #12858b; --grey: #8d97a5 }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9f0; --soft: #9aa6b6; --page: #12161d; --card: #1b212b;
  --grid: #2f3845; --blue: #6aa8ff; --orange: #ffab5c; --red: #ff7b82; --green: #6fd39a; --violet: #b79cf5;
  --teal: #5fc9cd; --grey: #7b8696 } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 980px; padding: 28px 24px 60px; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif }
h1 { font-size: 25px; margin: 0 } h2 { font-size: 18px; margin: 36px 0 8px } h3 { font-size: 15px; margin: 20px 0 4px }
p { margin: 6px 0 } .sub, .note { color: var(--soft) } .note { font-size: 13px }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: 12px; margin: 20px 0 }
.tile { background: var(--card); border-radius: 8px; padding: 12px 14px }
.tile b { display: block; font-size: 23px; font-weight: 600; white-space: nowrap; font-variant-numeric: tabular-nums }
.tile span { color: var(--soft); font-size: 13px } .tile small { font-size: 14px; font-weight: 400; color: var(--soft) }
.tile.bad b { color: var(--red) } .tile.good b { color: var(--green) }
.cautions { border-left: 4px solid var(--orange); background: var(--card); padding: 8px 14px; margin: 16px 0;
  border-radius: 0 8px 8px 0 }
.cautions li { margin: 2px 0 } .cautions ul { margin: 4px 0; padding-left: 18px }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(400px, 1fr)); gap: 0 28px }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 14px }
th { text-align: left; font-weight: 600; color: var(--soft) } th, td { padding: 4px 10px 4px 0;
  border-bottom: 1px solid var(--grid); vertical-align: top } td.n, th.n { text-align: right }
tr.found td { font-weight: 600; background: var(--card) } td.no { color: var(--red) } td.yes { color: var(--green) }
figure { margin: 10px 0 } figcaption { color: var(--soft); font-size: 13px }
svg { width: 100%; height: auto; display: block }
svg text { fill: var(--soft); font-size: 12px } svg .end { text-anchor: end } svg .mid { text-anchor: middle }
svg .inside { fill: var(--page); text-anchor: middle; font-weight: 600 }
.grid { stroke: var(--grid); fill: none } .axis { stroke: var(--grey); fill: none }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round }
.mark { stroke-width: 1.4; stroke-dasharray: 5 4; fill: none }
.bar { fill: var(--blue) }
.blue { stroke: var(--blue) } .orange { stroke: var(--orange) } .red { stroke: var(--red) }
.green { stroke: var(--green) }
.violet { stroke: var(--violet) } .teal { stroke: var(--teal) } .grey { stroke: var(--grey) }
.grey.line { stroke-dasharray: 3 3 }
.dot { stroke-width: 1.6; fill: var(--page) } .part { stroke: none }
.part.blue { fill: var(--blue) } .part.orange { fill: var(--orange) } .part.green { fill: var(--green) }
.part.violet { fill: var(--violet) } .part.teal { fill: var(--teal) } .part.red { fill: var(--red) }
.part.grey { fill: var(--grey) }
.legend { font-size: 13px; color: var(--soft); margin: 0 0 4px; display: flex; flex-wrap: wrap; gap: 2px 18px }
.key { display: inline-block; width: 14px; height: 4px; border-radius: 2px; margin-right: 6px; vertical-align: middle }
.key.blue { background: var(--blue) } .key.orange { background: var(--orange) } .key.red { background: var(--red) }
.key.green { background: var(--green) } .key.violet { background: var(--violet) } .key.teal { background: var(--teal) }
.key.grey { background: var(--grey) }
@media print { body { max-width: none; padding: 0; font-size: 12px }
  figure, table, .tiles, .cautions { break-inside: avoid }
  h2, h3 { break-after: avoid } .tile, .cautions { border: 1px solid var(--grid) } }
"""
