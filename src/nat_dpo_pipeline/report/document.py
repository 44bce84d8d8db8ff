"""What all pages have in common: templates, assets, and a policy under which nothing runs but our own scripts."""

from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from nat_dpo_pipeline.json_text import json_bytes

# Inside <script> the parser of HTML looks for tags and comments, and JavaScript once took U+2028 for the end of a line.
_ESCAPES = {
    ord("<"): "\\u003c",
    ord(">"): "\\u003e",
    ord("&"): "\\u0026",
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}


def page(template: str, script: str, **values: object) -> Iterator[str]:
    """Yield the page of a template in pieces, with the style and the scripts of all pages and the `script` of this."""
    style, *scripts = (asset(name) for name in ("page.css", "vendor.js", "charts.js", script))
    ours = dict(zip(("style", "vendor", "charts_script", "script"), map(Markup, (style, *scripts)), strict=True))
    licences = asset("vendor.LICENSES.txt")
    yield from (
        _environment()
        .get_template(template)
        .generate(policy=policy(tuple(scripts), style), licences=licences, **ours, **values)
    )


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("nat_dpo_pipeline.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"count": count, "money": money, "percent": percent, "value": value, "words": words}
    return made


def asset(name: str) -> str:
    """The text of a file in `assets/`."""
    return files("nat_dpo_pipeline.report").joinpath("assets", name).read_text(encoding="utf-8")


def policy(scripts: tuple[str, ...], style: str) -> str:
    """Nothing runs, styles or loads but what stands in the page, known by its hash."""
    hashes = " ".join(map(_hash, scripts))
    return (
        f"default-src 'none'; script-src {hashes}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def json_for_html(found: object) -> Markup:
    """Return `found` as JSON that can stand in a <script> block."""
    return Markup(json_bytes(found).decode().translate(_ESCAPES))  # noqa: S704 - escaped


def count(number: float) -> str:
    return f"{number:,.0f}"


def money(cost: float) -> str:
    return f"{cost:,.2f}" if cost >= 1 or cost == 0 else f"{cost:.4f}"


def percent(share: float) -> str:
    return f"{share:.0%}".replace("%", "\N{NO-BREAK SPACE}%")


def value(number: float) -> str:
    return f"{number:,.3g}" if abs(number) < 1_000 else f"{number:,.0f}"


def words(name: str) -> str:
    return name.replace("_", " ")
