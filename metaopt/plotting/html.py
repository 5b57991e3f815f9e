"""The frame of every page that is written: self-contained, without scripts."""

import html
from collections.abc import Sequence


def html_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], *, last_in_bold: bool = True
) -> str:
    """A table; the last row may be its sum."""
    cells = lambda row, tag: "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)
    head = f"<thead><tr>{cells(headings, 'th')}</tr></thead>"
    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    kind = " class='sums'" if last_in_bold else ""
    return f"<div class='wide'><table{kind}>{head}<tbody>{body}</tbody></table></div>"


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ margin: 0 auto; max-width: 62rem; padding: 2.5rem 1.25rem 4rem; color: #37352f;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; background: #fff; }}
h1 {{ font-size: 1.7rem; margin: 0; }}
h2 {{ font-size: 1.1rem; margin: 2rem 0 .5rem; }}
p {{ max-width: 50rem; }}
.lead, .note {{ color: #6b6a66; }}
.lead {{ margin-top: .3rem; }}
.note {{ font-size: .85rem; }}
.verdict {{ font-size: 1.15rem; margin: 1.5rem 0 .5rem; }}
.verdict b {{ color: #0b6e99; font-size: 1.7rem; }}
figure {{ margin: 1.25rem 0; }}
svg, img {{ width: 100%; height: auto; }}
table {{ border-collapse: separate; border-spacing: 0; width: 100%;
  font-variant-numeric: tabular-nums; }}
th, td {{ padding: .45rem .4rem; border-bottom: 1px solid #e5e4e0; text-align: right; }}
th {{ vertical-align: bottom; }}
td {{ white-space: nowrap; }}
th:first-child {{ overflow-wrap: anywhere; min-width: 11em; }}
th:first-child, td:first-child {{ text-align: left; position: sticky; left: 0;
  background: #fff; }}
dd {{ margin: 0 0 .5rem 1rem; }}
.wide {{ overflow-x: auto; font-size: .85rem; }}
table.sums tbody tr:last-child {{ font-weight: 600; }}
pre {{ background: #f7f6f3; padding: .8rem 1rem; overflow-x: auto; border-radius: 6px;
  font-size: .85rem; }}
@media (max-width: 40rem) {{
  body {{ padding: 1.5rem 1rem 3rem; }}
  h1 {{ font-size: 1.4rem; }}
  .verdict b {{ font-size: 1.4rem; }}
  figure {{ overflow-x: auto; }}
  svg {{ width: 38rem; }}
}}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""
