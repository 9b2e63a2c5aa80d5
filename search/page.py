"""What another model changes, as a page: the summary, then each query's two lists, the most changed first."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from sentence_forge.search.changes import Change, summary

MOST_SHOWN = 300
_STYLE = """
:root{color-scheme:light dark;--page:#f4f5f8;--card:#fff;--ink:#17202b;--soft:#5a6675;--line:#e2e6ec;--in:#14866d;
--out:#c2412d;--bar:#3d55d6}
@media (prefers-color-scheme:dark){:root{--page:#0e1319;--card:#161d26;--ink:#e7ecf2;--soft:#98a5b5;--line:#28323e;
--in:#41c7a4;--out:#ff8b77;--bar:#8fa5ff}}
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,sans-serif,
"Noto Sans CJK SC"}main{max-width:1120px;margin:0 auto;padding:36px 20px}h1{font-size:26px;margin:0 0 4px}
h2{font-size:16px;margin:0;overflow-wrap:anywhere}.soft{color:var(--soft);font-size:13px}
section{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:18px 20px;margin:0 0 16px}
.head{display:flex;justify-content:space-between;gap:16px;margin-bottom:10px}.head span{white-space:nowrap}
.two{display:grid;grid-template-columns:1fr 1fr;gap:8px 28px}.two h3{font-size:12px;margin:0;color:var(--soft)}
ol{margin:0;padding:0 0 0 26px;font-size:14px}li{padding:2px 0;overflow-wrap:anywhere}li::marker{color:var(--soft)}
.in{color:var(--in)}.out{color:var(--out)}li small{margin-left:6px;white-space:nowrap}
.bars{display:flex;align-items:flex-end;gap:3px;height:70px;margin-top:14px}.bars div{flex:1;background:var(--bar);
min-height:1px;border-radius:2px 2px 0 0}.axis{display:flex;justify-content:space-between}
@media (max-width:700px){.two{grid-template-columns:minmax(0,1fr)}}
"""


def page(found: Sequence[Change], k: int, new: str, old: str, note: str = "") -> str:
    """Return the page on what ``new`` changes against ``old``."""
    most = sorted(found, key=lambda change: change.overlap)[:MOST_SHOWN]
    told = "".join(f"<p>{escape(line)}</p>" for line in summary(found, k))
    left_out = (f'<p class="soft">The {len(most)} most changed are shown.</p>' if len(most) < len(found) else "")
    return (f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width,initial-scale=1"><title>What changed</title>'
            f"<style>{_STYLE}</style></head><body><main><h1>{escape(new)}</h1>"
            f'<p class="soft">against {escape(old)}. {escape(note)}</p>'
            f"<section>{told}{_bars(found)}{left_out}</section>"
            f"{''.join(_query(change, new, old) for change in most)}</main></body></html>\n")


def _bars(found: Sequence[Change]) -> str:
    if len(found) < 2:
        return ""
    counts = np.histogram([change.overlap for change in found], bins=11, range=(-0.05, 1.05))[0]
    bars = "".join(f'<div style="height:{100 * count / counts.max():.0f}%" title="{count} queries"></div>'
                   for count in counts)
    return (f'<div class="bars">{bars}</div><div class="axis soft"><span>0 % overlap</span><span>queries by overlap'
            "</span><span>100 %</span></div>")


def _query(change: Change, new: str, old: str) -> str:
    gone = {move.old for move in change.left}
    before = "".join(f'<li class="out">{escape(hit.title)}<small>left</small></li>' if hit.rank in gone else
                     f"<li>{escape(hit.title)}</li>" for hit in change.old)
    after = ""
    for move in change.moves:
        if move.new is None:
            continue
        if move.old is None:
            after += f'<li class="in">{escape(move.title)}<small>entered</small></li>'
        elif move.old == move.new:
            after += f"<li>{escape(move.title)}</li>"
        else:
            up = move.old > move.new
            after += (f'<li>{escape(move.title)}<small class="{"in" if up else "out"}">{"↑" if up else "↓"}'
                      f"{abs(move.old - move.new)}</small></li>")
    return (f'<section><div class="head"><h2>{escape(change.query)}</h2><span class="soft">overlap '
            f'{100 * change.overlap:.0f} %</span></div><div class="two">'
            f"<div><h3>{escape(old)}</h3><ol>{before}</ol></div><div><h3>{escape(new)}</h3><ol>{after}</ol></div></div></section>")
