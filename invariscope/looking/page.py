"""What a look found, as HTML: self-contained, every text from outside escaped."""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING

from invariscope.looking.drawing import caption

if TYPE_CHECKING:
    from invariscope.looking.found import Look

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222;"
    "background:#fff}"
    "img{max-width:100%;height:auto}table{border-collapse:collapse;font-size:13px}"
    "td,th{padding:.2rem .5rem;text-align:right;border-bottom:1px solid #e6e6e6}.wide{overflow-x:auto}"
)


def page(look: Look, png: bytes, *, whole: bool = False) -> str:
    """The lines, the figure, its caption and the frame; ``whole``: as a page of its own."""
    first, *lines = look.lines()
    picture = base64.b64encode(png).decode()
    told = "".join(f"<li>{escape(line)}</li>" for line in lines)
    shown = escape("; ".join([first, *lines[: len(look.blames)]]), quote=True)
    table = look.frame().to_html(index=False, na_rep="", float_format=lambda value: f"{value:.3g}", border=0)
    body = (
        f"<p><strong>{escape(first)}</strong></p><ul>{told}</ul>"
        f'<p><img src="data:image/png;base64,{picture}" alt="{shown}" style="max-width:100%"></p>'
        f"<details><summary>What the figure shows</summary><p>{escape(caption(look))}</p></details>"
        f'<details><summary>Every number</summary><div class="wide">{table}</div></details>'
    )
    if not whole:
        return f"<div>{body}</div>"
    title = escape(look.name)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body><main><h1>{title}</h1>{body}</main></body></html>\n"
    )
