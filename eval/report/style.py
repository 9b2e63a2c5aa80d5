"""The report's style sheet: light and dark by the reader's setting, one column where the window is narrow."""

STYLE = """
:root{color-scheme:light dark;--page:#f4f5f8;--card:#fff;--ink:#17202b;--soft:#5a6675;--line:#e2e6ec;
--main:#3d55d6;--low:#d9772b;--mid:#8692a3;--high:#14866d;--good:#14866d;--bad:#c2412d}
@media (prefers-color-scheme:dark){:root{--page:#0e1319;--card:#161d26;--ink:#e7ecf2;--soft:#98a5b5;--line:#28323e;
--main:#8fa5ff;--low:#f2a25c;--mid:#8793a4;--high:#41c7a4;--good:#41c7a4;--bad:#ff8b77}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Noto Sans","Noto Sans CJK SC",sans-serif;font-variant-numeric:tabular-nums}
main{max-width:1120px;margin:0 auto;padding:40px 24px 24px}
h1{font-size:28px;line-height:1.2;margin:0;overflow-wrap:anywhere;letter-spacing:-.01em}
h2{font-size:18px;margin:0;letter-spacing:-.005em}
h2 small{font-size:13px;font-weight:400;color:var(--soft);margin-left:6px}
h3{font-size:13px;font-weight:600;margin:0 0 6px}
.eyebrow{font-size:12px;font-weight:600;letter-spacing:.08em;text-transform:uppercase;color:var(--main);margin:0 0 6px}
.note{color:var(--soft);font-size:13px;margin:6px 0 0}
.top{display:flex;gap:16px 40px;justify-content:space-between;align-items:flex-end;flex-wrap:wrap;margin-bottom:24px}
.top>div:first-child{flex:1 1 380px;min-width:0}
.average{flex:none;max-width:100%}
.average b{display:block;font-size:60px;line-height:1;font-weight:700;letter-spacing:-.03em;color:var(--main)}
.card{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:22px 24px;margin:0 0 20px;
box-shadow:0 1px 2px rgb(10 20 40/.04)}
.head{display:flex;flex-wrap:wrap;gap:2px 16px;align-items:baseline;justify-content:space-between;margin-bottom:14px}
.head strong{font-size:24px;letter-spacing:-.02em;color:var(--main)}.head small{font-size:13px;color:var(--soft)}
.two{display:grid;grid-template-columns:1fr 1fr;gap:20px 32px}
.two>div{min-width:0}
table{border-collapse:collapse;width:100%}
th{font-size:12px;font-weight:600;color:var(--soft);text-align:right;padding:0 10px 8px;vertical-align:bottom}
td{text-align:right;padding:9px 10px;border-top:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left;padding-left:0;white-space:normal}
th:last-child,td:last-child{padding-right:0}
td a{color:inherit;text-decoration:none;font-weight:600}td a:hover{text-decoration:underline}
td small{display:block;font-weight:400;color:var(--soft);font-size:12px;line-height:1.3}
.summary td:first-child{min-width:150px}
td.value{font-weight:700;font-size:16px}
tr.total td{border-top:2px solid var(--line)}tr.total td:first-child{font-weight:700}
.span{width:34%;min-width:200px}
.bar{position:relative;height:18px}
.bar i,.bar b,.bar u{position:absolute}
.bar u{top:-10px;bottom:-10px;width:1px;background:var(--line)}
.bar i{top:6px;height:6px;border-radius:3px;background:var(--main);opacity:.35;min-width:2px}
.bar b{top:3px;width:4px;height:12px;margin-left:-2px;border-radius:2px;background:var(--main)}
.bar i.old{top:8px;height:2px;background:var(--soft);opacity:.7}
.bar b.old{top:4px;width:10px;height:10px;margin-left:-5px;border-radius:50%;background:var(--card);
border:2px solid var(--soft)}
.scale{position:relative;height:16px}.scale span{position:absolute;transform:translateX(-50%)}
.good{color:var(--good)}.bad{color:var(--bad)}.same{color:var(--soft)}
.plot{display:block;width:100%;height:auto;overflow:visible}
.plot text{font-size:11px;fill:var(--soft)}.plot .name{text-anchor:middle}
.plot .across text{text-anchor:middle}.plot .up text,.plot .before-name{text-anchor:end}
.grid path{stroke:var(--line);stroke-width:1}
.dots circle{fill:var(--main);fill-opacity:.25}
.band{fill:var(--ink);fill-opacity:.1}.median{fill:none;stroke:var(--ink);stroke-width:2;stroke-linejoin:round}
.knots circle{fill:var(--card);stroke:var(--ink);stroke-width:1.5}
.hist{fill-opacity:.28;stroke-width:1.5;stroke-linejoin:round}
.low{--hue:var(--low)}.mid{--hue:var(--mid)}.high{--hue:var(--high)}.hist{fill:var(--hue);stroke:var(--hue)}
.legend{display:flex;flex-wrap:wrap;gap:2px 16px;font-size:12px;color:var(--soft);margin:4px 0 0;padding:0 0 0 9%}
.legend span::before{content:"";display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:6px;
background:var(--hue)}
.line{fill:none;stroke:var(--main);stroke-width:2;stroke-linejoin:round}
.before{stroke:var(--soft);stroke-width:1.5;stroke-dasharray:5 4}.best{fill:none;stroke:var(--main);stroke-width:2}
.domains{display:grid;grid-template-columns:minmax(0,max-content) 1fr max-content;gap:3px 12px;font-size:13px;
align-items:center}
.domains>span{overflow-wrap:anywhere}.domains>div{height:6px;border-radius:3px;background:var(--line)}
.domains>div>div{height:6px;border-radius:3px;background:var(--main);opacity:.75}
.domains small{color:var(--soft)}
.small td,.small th{padding:4px 8px;font-size:13px}.small th{font-size:12px}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:3px 18px;margin:0;font-size:13px}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
.story{font-size:17px;margin:0 0 18px}
.multiples{display:grid;grid-template-columns:repeat(auto-fill,minmax(190px,1fr));gap:18px 24px}
figure{margin:0;min-width:0}figcaption{font-size:13px;display:flex;justify-content:space-between;gap:8px;margin-bottom:4px}
figcaption a{color:inherit;text-decoration:none;overflow-wrap:anywhere}figcaption a:hover{text-decoration:underline}
.multiples .plot{background:color-mix(in srgb,var(--line) 25%,transparent);border-radius:8px}
.rule{stroke:var(--line);stroke-width:1}.multiples .band{fill:var(--main);fill-opacity:.16}
.multiples .before{fill:none}
.facts{grid-template-columns:max-content minmax(0,1fr)}.facts b{font-weight:600}.facts span{color:var(--soft)}
.wide{overflow-x:auto}
details{border-top:1px solid var(--line);margin-top:18px;padding-top:12px}
summary{cursor:pointer;font-weight:600;font-size:14px}summary small{font-weight:400;color:var(--soft);margin-left:6px}
details>.wide{margin-top:10px}
.pairs{font-size:13px}.pairs th,.pairs td{text-align:right;vertical-align:top;padding:7px 10px}
.pairs td.text{text-align:left;white-space:normal;min-width:220px;width:44%;overflow-wrap:anywhere}
.pairs th:nth-last-child(-n+2){text-align:left}
.sortable button{all:unset;cursor:pointer;white-space:nowrap}.sortable button:hover{color:var(--ink)}
.sortable button:focus-visible,summary:focus-visible{outline:2px solid var(--main);outline-offset:2px;border-radius:3px}
.sortable button::after{content:"↕";opacity:.35;margin-left:4px}
[aria-sort=descending] button::after{content:"↓";opacity:1}[aria-sort=ascending] button::after{content:"↑";opacity:1}
.over{color:var(--bad);font-weight:600}.under{color:var(--main);font-weight:600}td.best{font-weight:700}
main.board{max-width:none}.board td,.board th{white-space:nowrap}
.heat{background:color-mix(in srgb,var(--main) calc(var(--heat)*.55),transparent)}
.small td:not(:first-child){white-space:nowrap}.small td.wrap{white-space:normal;min-width:170px}
.models td{vertical-align:top}
section+section{margin-top:0}.below{margin-top:20px}
footer{max-width:1120px;margin:0 auto;padding:0 24px 48px;color:var(--soft);font-size:12px}
footer code{overflow-wrap:anywhere;font-size:11.5px}
@media (max-width:920px){.two{grid-template-columns:minmax(0,1fr)}}
@media (max-width:760px){main{padding:24px 14px 12px}.card{padding:16px 14px;border-radius:12px}
.average b{font-size:48px}
.summary thead{display:none}.summary tr{display:grid;grid-template-columns:1fr 1fr 1fr;padding:12px 0;
border-top:1px solid var(--line)}
.summary tbody tr:first-child,.summary tr.total td{border-top:0}
.summary td{border:0;padding:1px 0;min-width:0}.summary td:first-child{grid-column:span 2;min-width:0}
.summary td.value{font-size:18px}.summary td.value small{font-size:11px}
.summary td.span{grid-column:1/-1;width:auto;padding:4px 0}
.summary td.change{grid-column:1/-1;text-align:left}.summary td.change small{display:inline;margin-left:8px}
.summary td.minor{font-size:12px;color:var(--soft)}.summary td.minor:empty{display:none}
.summary td.minor::before{content:attr(data-name) " "}.summary td.minor.first{text-align:left}
.summary td.minor.second{text-align:center}
.bar u{top:0;bottom:0}dl,.facts{grid-template-columns:minmax(0,1fr)}dt{margin-top:4px}footer{padding:0 14px 32px}}
@media print{body{background:#fff}.card{break-inside:avoid;box-shadow:none}}
"""
