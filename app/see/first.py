"""The first picture: the ruler as the page opens, there at once, until scripts have drawn the one that moves."""

from __future__ import annotations

import json
from itertools import groupby

from app.see.words import ASSETS, ruler_config, strings
from app.ui.figure import COLOURS, UNSEEN
from app.web.card import TITLE
from lampe.methods import METHODS, Method
from lampe.positions import PositionMap, Role

START = 12_288
"""Tokens that the ruler begins with."""

_WORDS = ("title", "lead", "unseen", "ruler")
_THREADS = 160
_WIDTH, _TOP, _BOTTOM, _PAD = 1152, 30, 290, 14
_RULER = 0.62  # the trained distances' share of the width, as in hero.js


def first_picture() -> str:
    """HTML for the beginning of the page's body: what is looked at while the page loads, and takes itself away.

    It is shown where the ruler is what opens, in the language and the colours that the page will have.
    """
    words = {
        language: {key: texts[key].replace("{window}", f"{ruler_config().window:,}") for key in _WORDS}
        for language, texts in strings().items()
    }
    colours = "".join(f"--{role}: {colour};" for role, colour in COLOURS.items()) + f"--unseen: {UNSEEN};"
    style = (ASSETS / "first.css").read_text(encoding="utf-8")
    script = (ASSETS / "first.js").read_text(encoding="utf-8")
    # A closing tag within a script would end it.
    texts = json.dumps(words, ensure_ascii=False).replace("<", "\\u003c")
    return (
        f"<style>#first {{ {colours} }}\n{style}</style>"
        f'<div id="first" aria-hidden="true"><h1>{TITLE}</h1><h2 data-first="title"></h2>'
        f'<p data-first="lead"></p>{ruler(first_method(), START)}<div><b data-first="unseen"></b>'
        '<b data-first="ruler"></b></div></div>'
        f"<script>(() => {{ const words = {texts};\n{script} }})();</script>"
    )


def first_method() -> Method:
    """The one that the ruler begins with: the registry's first."""
    return next(iter(METHODS.values())).for_window(ruler_config().window)


def ruler(method: Method, length: int) -> str:
    """The squeezed ruler as SVG: each thread leads from a token's place to the distance that it is given."""
    position_map, window, last = method.position_map(length), method.window, length - 1
    keys = [round(number / _THREADS * last) for number in range(_THREADS + 1)]
    ends = {key: float(position_map.relative(last, key)) for key in keys}
    roles = {key: _role(position_map, last, key) for key in keys}

    def place(share: float) -> float:
        return _PAD + share * (_WIDTH - 2 * _PAD)

    def end(position: float) -> float:
        return _WIDTH - _PAD - position / window * _RULER * (_WIDTH - 2 * _PAD)

    ribbon = ""
    for role, run in groupby(keys, key=roles.__getitem__):
        some = list(run)
        left, right = place(some[0] / last), place(min(last, some[-1] + last / _THREADS) / last)
        ribbon += f'<rect class="{role}" x="{left:.1f}" width="{right - left:.1f}" height="{_TOP}"/>'
    middle = (_TOP + _BOTTOM) / 2
    threads = "".join(
        f'<path class="{"unseen" if ends[key] >= window else roles[key]}" '
        f'd="M{place(key / last):.1f} {_TOP}C{place(key / last):.1f} {middle} {end(ends[key]):.1f} {middle} '
        f'{end(ends[key]):.1f} {_BOTTOM}"/>'
        for key in keys
    )
    return f'<svg viewBox="0 0 {_WIDTH} {_BOTTOM}" preserveAspectRatio="none">{ribbon}{threads}</svg>'


def _role(position_map: PositionMap, query: int, key: int) -> Role:
    return position_map.regions[int(position_map.region(query, key))].role
