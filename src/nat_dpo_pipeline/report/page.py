"""report.html: one file with everything in it, written as it is made."""

from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from nat_dpo_pipeline.report.dangers import Danger
from nat_dpo_pipeline.report.numbers import Numbers, Versus
from nat_dpo_pipeline.report.pair_data import PairIndex, chunks, every_how_many, json_for_html
from nat_dpo_pipeline.report.paired import PairedTurns

_SHADES = 6


def write_page(path: Path, numbers: Numbers, dangers: list[Danger], turns: PairedTurns) -> None:
    """Write the page, turn by turn."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(page(numbers, dangers, turns))


def page(numbers: Numbers, dangers: list[Danger], turns: PairedTurns) -> Iterator[str]:
    """The page in pieces."""
    index, step = PairIndex(), every_how_many(numbers)
    style, vendor, script = (_asset(name) for name in ("page.css", "vendor.js", "page.js"))
    yield from (
        _environment()
        .get_template("page.html.j2")
        .generate(
            n=numbers,
            dangers=dangers,
            policy=_policy((vendor, script), style),
            style=Markup(style),  # noqa: S704 - ours
            vendor=Markup(vendor),  # noqa: S704 - ours
            script=Markup(script),  # noqa: S704 - ours
            licences=_asset("vendor.LICENSES.txt"),
            step=step,
            versus=_table_of_models(numbers),
            chunks=(Markup(chunk) for chunk in chunks(turns(), step, index)),  # noqa: S704 - escaped by json_for_html
            index=lambda: Markup(json_for_html(index.to_json())),  # noqa: S704 - escaped by json_for_html
            charts=Markup(json_for_html(numbers.to_json())),  # noqa: S704 - escaped by json_for_html
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("nat_dpo_pipeline.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": _count, "money": _money, "percent": _percent, "value": _value, "words": _words}
    return environment


def _asset(name: str) -> str:
    return files("nat_dpo_pipeline.report").joinpath("assets", name).read_text(encoding="utf-8")


def _policy(scripts: tuple[str, ...], style: str) -> str:
    """Nothing runs, styles or loads but what stands in the page, known by its hash."""
    hashes = " ".join(map(_hash, scripts))
    return (
        f"default-src 'none'; script-src {hashes}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def _table_of_models(numbers: Numbers) -> list[tuple[str, list[tuple[str, int | None, str]]]]:
    """A row for each model: against each of the others its share of wins, the shade of it, and the counts in words."""
    found = {(one.model, one.other): one for one in numbers.versus}
    names = [one.name for one in numbers.models]
    return [(name, [_cell(name, other, found) for other in names]) for name in names]


def _cell(name: str, other: str, found: dict[tuple[str, str], Versus]) -> tuple[str, int | None, str]:
    one = found.get((name, other))
    if one is None:
        return "", None, ""
    rate = (one.wins + one.ties / 2) / (one.wins + one.ties + one.losses)
    return _percent(rate), round(rate * _SHADES), f"{one.wins:,} won, {one.ties:,} tied, {one.losses:,} lost"


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _money(cost: float) -> str:
    return f"{cost:,.2f}" if cost >= 1 or cost == 0 else f"{cost:.4f}"


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", "\N{NO-BREAK SPACE}%")


def _value(value: float) -> str:
    return f"{value:,.3g}" if abs(value) < 1_000 else f"{value:,.0f}"


def _words(name: str) -> str:
    return name.replace("_", " ")
