"""report.html: one file with everything in it, written as it is made."""

from collections.abc import Iterator

from markupsafe import Markup

from nat_dpo_pipeline.report.dangers import Danger
from nat_dpo_pipeline.report.document import asset, environment, json_for_html, percent, policy
from nat_dpo_pipeline.report.numbers import Numbers, Versus
from nat_dpo_pipeline.report.pair_data import PairIndex, chunks, every_how_many
from nat_dpo_pipeline.report.paired import PairedTurns

_SHADES = 6


def page(numbers: Numbers, dangers: list[Danger], turns: PairedTurns) -> Iterator[str]:
    """The page in pieces."""
    index, step = PairIndex(), every_how_many(numbers)
    style, *scripts = (asset(name) for name in ("page.css", "vendor.js", "charts.js", "page.js"))
    vendor, shared, script = scripts
    yield from (
        environment()
        .get_template("page.html.j2")
        .generate(
            n=numbers,
            dangers=dangers,
            policy=policy((vendor, shared, script), style),
            style=Markup(style),  # noqa: S704 - ours
            vendor=Markup(vendor),  # noqa: S704 - ours
            charts_script=Markup(shared),  # noqa: S704 - ours
            script=Markup(script),  # noqa: S704 - ours
            licences=asset("vendor.LICENSES.txt"),
            step=step,
            versus=_table_of_models(numbers),
            chunks=(Markup(chunk) for chunk in chunks(turns(), step, index)),  # noqa: S704 - escaped by json_for_html
            index=lambda: Markup(json_for_html(index.to_json())),  # noqa: S704 - escaped by json_for_html
            charts=Markup(json_for_html(numbers.to_json())),  # noqa: S704 - escaped by json_for_html
        )
    )


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
    return percent(rate), round(rate * _SHADES), f"{one.wins:,} won, {one.ties:,} tied, {one.losses:,} lost"
