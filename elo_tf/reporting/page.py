"""One self-contained HTML page: the shell, its style, and the few elements the report is made of.

Every function returns HTML whose texts are escaped; nothing on the page refers to another file.
"""

import html
from collections.abc import Callable, Mapping, Sequence

from matplotlib.figure import Figure

from elo_tf.reporting import svg

WIDE, PHONE = 760, 340


class Markup(str):
    """Text that is HTML already; every other string is escaped when it is put on the page."""

    __slots__ = ()


def escape(value: object) -> Markup:
    """`value` as HTML."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value)))


def number(value: float | None, form: str = ".3f") -> Markup:
    """A number as people read it, with its exact value beside it for programs."""
    if value is None or value != value:
        return Markup('<span class="quiet">none</span>')
    return Markup(f'<data value="{value!r}">{format(value, form)}</data>')


def percent(fraction: float) -> Markup:
    """A fraction as a percentage."""
    return Markup(f'<data value="{fraction!r}">{100 * fraction:.1f}%</data>')


def paragraph(*parts: object) -> Markup:
    """A paragraph of texts and elements."""
    return Markup(f"<p>{''.join(map(escape, parts))}</p>")


def note(*parts: object) -> Markup:
    """A quiet paragraph, such as the sentence for a part that is left out."""
    return Markup(f'<p class="quiet">{"".join(map(escape, parts))}</p>')


def section(title: str, *parts: Markup) -> Markup:
    """A section with a heading."""
    return Markup(f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>")


def tiles(items: Sequence[tuple[str, object, object]]) -> Markup:
    """The numbers that matter: (name, value, what it means) each."""
    inner = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd><dd>{escape(meaning)}</dd></div>"
        for name, value, meaning in items)
    return Markup(f'<dl class="tiles">{inner}</dl>')


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], *, text: int = 1) -> Markup:
    """A table that scrolls by itself where it is wider than the page.

    Args:
      headers: of the columns.
      rows: of cells.
      text: the first so many columns are texts, the others numbers.
    """
    def kind(column: int) -> str:
        return "" if column < text else ' class="number"'

    head = "".join(f'<th scope="col"{kind(i)}>{escape(x)}</th>' for i, x in enumerate(headers))
    body = "".join(
        "<tr>" + "".join(f"<td{kind(i)}>{escape(x)}</td>" for i, x in enumerate(row)) + "</tr>"
        for row in rows)
    return Markup(f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
                  f"<tbody>{body}</tbody></table></div>")


def folded(title: str, inner: Markup) -> Markup:
    """What only some will want to read."""
    return Markup(f"<details><summary>{escape(title)}</summary>{inner}</details>")


def chart(name: str, draw: Callable[..., Figure], *, caption: str) -> Markup:
    """A figure drawn twice, for wide pages and for phones, of which the page shows one.

    Args:
      name: unique on the page.
      draw: makes the figure for a `width` in CSS pixels.
      caption: what it shows; also for those who do not see it.
    """
    drawn = "".join(
        f'<div class="{kind}">'
        f"{svg.to_svg(draw(width=width), name=f'{name}-{kind}', description=caption)}</div>"
        for kind, width in (("wide", WIDE), ("phone", PHONE)))
    return Markup(f"<figure>{drawn}<figcaption>{escape(caption)}</figcaption></figure>")


def panels(name: str, figures: Mapping[str, Figure], *, caption: str) -> Markup:
    """Small figures in as many columns as there is room for."""
    drawn = "".join(
        svg.to_svg(figure, name=f"{name}-{i}", description=f"{title}: {caption}")
        for i, (title, figure) in enumerate(figures.items()))
    return Markup(f'<figure><div class="panels">{drawn}</div>'
                  f"<figcaption>{escape(caption)}</figcaption></figure>")


def picture(uri: str, description: str, *, kind: str) -> Markup:
    """An image given as a `data:` address; `kind` is its class in the style sheet."""
    return Markup(f'<img class="{kind}" src="{uri}" alt="{escape(description)}">')


def document(title: str, *parts: Markup, refresh: int = 0) -> str:
    """The whole page.

    Args:
      title: of it.
      *parts: its body.
      refresh: seconds after which a browser reads it again; 0: never.
    """
    again = f'<meta http-equiv="refresh" content="{refresh}">\n' if refresh else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"{again}<title>{escape(title)}</title>\n<style>{_style()}</style>\n</head>\n<body>\n"
        + "\n".join(parts) + "\n</body>\n</html>\n")


def _style() -> str:
    light, dark = (
        "".join(f"--{role}:{pair[i]};" for role, pair in svg.ROLES.items()) for i in (0, 1))
    return (f":root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}"
            + "".join(line.strip() for line in _RULES.splitlines()))


_RULES = """
*{box-sizing:border-box}
body{margin:0 auto;max-width:1000px;padding:48px 24px 64px;background:var(--paper);
color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:30px;line-height:1.2;letter-spacing:-.015em;margin:0 0 12px}
h2{font-size:20px;line-height:1.3;letter-spacing:-.01em;margin:0 0 8px;overflow-wrap:anywhere}
h3{font-size:15px;margin:0;overflow-wrap:anywhere}
p{margin:0 0 12px;max-width:70ch}
header p{font-size:17px}
section{margin-top:44px;padding-top:28px;border-top:1px solid var(--grid)}
.quiet,figcaption,footer,.tiles dd+dd,.tiles dt{color:var(--muted)}
.quiet,figcaption,footer{font-size:14px}
figure{margin:20px 0 28px}
figcaption{margin-top:8px;max-width:76ch}
svg{display:block;width:100%;height:auto;overflow:visible}
svg path,svg use{stroke-linejoin:round}
.phone{display:none}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(200px,1fr));gap:1px;
margin:28px 0 0;background:var(--grid);border:1px solid var(--grid);border-radius:8px;
overflow:hidden}
.tiles div{background:var(--paper);padding:16px 18px}
.tiles dt{font-size:14px}
.tiles dd{margin:2px 0 0;font-size:28px;font-weight:600;letter-spacing:-.02em;line-height:1.25;
font-variant-numeric:tabular-nums}
.tiles dd+dd{font-size:14px;font-weight:400;letter-spacing:0;line-height:1.4;margin-top:4px}
.panels{display:grid;grid-template-columns:repeat(auto-fill,minmax(215px,1fr));gap:18px 14px}
.scroll{overflow-x:auto;margin:12px 0 20px}
table{border-collapse:collapse;min-width:64%;font-size:14px;font-variant-numeric:tabular-nums}
th{text-align:left;font-weight:600;color:var(--muted);border-bottom:1px solid var(--muted);
white-space:nowrap}
th,td{padding:6px 20px 6px 0;vertical-align:top}
th:last-child,td:last-child{padding-right:0}
td{border-bottom:1px solid var(--grid);min-width:8em}
td.number{min-width:0}
.number{text-align:right;white-space:nowrap}
.bad{color:var(--bad)}
summary{cursor:pointer;color:var(--accent);font-size:15px;padding:4px 0}
code{font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,monospace;overflow-wrap:anywhere}
.sample{margin:22px 0 30px}
.sample>.quiet{margin:0 0 8px;overflow-wrap:anywhere}
.track{display:grid;grid-template-columns:84px minmax(0,1fr);gap:12px;align-items:center;
margin-top:6px;font-size:13px;color:var(--muted)}
.track p{margin:0}
.strip{display:block;width:100%;max-width:860px;height:auto}
.clips{display:grid;grid-template-columns:repeat(auto-fill,minmax(215px,1fr));gap:4px 10px;
margin:0 0 14px}
.clip{display:block;width:100%;height:auto;border-radius:3px}
.sound{display:block;width:100%;max-width:860px;height:72px}
.wheel{width:36px;height:36px;display:block;margin-top:4px}
.query,.near-list li{display:grid;grid-template-columns:190px minmax(0,1fr);gap:16px;
align-items:center}
.query{margin:14px 0 22px}
.query .frames{outline:2px solid var(--accent);outline-offset:3px;border-radius:3px}
.near-list{list-style:none;margin:0 0 14px;padding:0}
.near-list li{padding:9px 0;border-top:1px solid var(--grid)}
.about h3{font-size:13px;font-weight:400;line-height:1.35;color:var(--muted)}
.about p{margin:0}
.near{display:grid;grid-template-columns:1.6em 3.6em 1fr;align-items:center;font-weight:600;
font-variant-numeric:tabular-nums}
.near span{color:var(--muted);font-weight:400}
.near i{height:5px;border-radius:3px;
background:linear-gradient(90deg,var(--accent) var(--share),var(--grid) var(--share))}
.frames{display:grid;grid-template-columns:repeat(6,minmax(0,1fr));gap:4px}
.frames img{display:block;width:100%;aspect-ratio:1;object-fit:cover;border-radius:3px}
.absent{margin:0;padding:14px 16px;border:1px dashed var(--muted);border-radius:4px;
color:var(--muted);font-size:14px;overflow-wrap:anywhere;max-width:none}
footer{margin-top:48px;padding-top:20px;border-top:1px solid var(--grid)}
footer dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:4px 16px;margin:0}
footer dd{margin:0}
@media(max-width:640px){
table{min-width:100%}
body{padding:28px 16px 48px}h1{font-size:25px}
.wide{display:none}.phone{display:block}
.tiles{grid-template-columns:1fr 1fr}.tiles div{padding:12px}.tiles dd{font-size:22px}
.track{grid-template-columns:1fr;gap:3px}.wheel{display:none}
.query,.near-list li{grid-template-columns:minmax(0,1fr);gap:7px}
.frames{grid-template-columns:repeat(3,minmax(0,1fr))}
footer dl{grid-template-columns:1fr}footer dd{margin-bottom:8px}}
@media print{body{max-width:none;padding:0}details{display:none}}
"""
