"""`nat dpo report`: a finished run as a page, or on the terminal."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import wrap

import click

from nat_dpo_pipeline.cli.summaries import columns, counted, in_words, money, number
from nat_dpo_pipeline.cli.terminal import in_one_line, say_all
from nat_dpo_pipeline.errors import DPOPipelineError
from nat_dpo_pipeline.pairing.runs import paired_run
from nat_dpo_pipeline.report.dangers import Danger
from nat_dpo_pipeline.report.numbers import ModelNumbers, Numbers, SubtopicNumbers
from nat_dpo_pipeline.report.run import read_facts
from nat_dpo_pipeline.report.samples import Summary
from nat_dpo_pipeline.report.training import is_training, read_training, write_training_report
from nat_dpo_pipeline.report.writing import REPORT, examine, write_report

_WIDTH = 100
_MOST_SUBTOPICS = 15
_MOST_TEXTS = 5


@click.command(name="report")
@click.argument("run_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--text", is_flag=True, help="The numbers on the terminal; nothing is written.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the page goes; report.json goes beside it.  [default: RUN_DIR/report.html]",
)
def report_command(run_dir: Path, text: bool, output: Path | None) -> None:
    """Make a page of a run that opens from disk: flow, scores, lengths, models, warnings, and every pair.

    RUN_DIR is the folder that `nat dpo generate` wrote; what each warning means is in docs/report.md. Of the folder of
    a local training the page has its learning curves and what was measured.
    """
    if text and output is not None:
        raise click.UsageError("--text writes nothing: leave out --output, or --text")
    run_report(run_dir, output, text=text)


def run_report(run_dir: Path, output: Path | None, *, text: bool) -> None:
    """Write the report, or print its numbers."""
    if is_training(run_dir):
        say_all(_lines_of_training(run_dir) if text else [f"Report: {write_training_report(run_dir, output)}"])
    else:
        say_all(_lines_of_run(run_dir) if text else [written(run_dir, output)])


def written_after(run_dir: Path) -> str:
    """Return the line about the report of a run that has just ended, also when the report could not be written."""
    try:
        return written(run_dir)
    except DPOPipelineError as error:
        return f"No report: {in_one_line(error)}"


def written(run_dir: Path, output: Path | None = None) -> str:
    """Write the report; return a line with its path and its warnings. Raises InputError and OutputError."""
    path = output or run_dir / REPORT
    facts = read_facts(run_dir)
    turns = paired_run(run_dir)
    numbers, dangers = examine(run_dir, facts, turns)
    write_report(path, numbers, dangers, turns)
    titles = "; ".join(danger.title for danger in dangers)
    return f"Report: {path}" + (f" ({counted(len(dangers), 'warning')}: {titles})" if dangers else "")


def _lines_of_training(folder: Path) -> Iterator[str]:
    run = read_training(folder)
    yield f"{run.name}: {run.sentence}"
    for title, found in (("Measured", run.figures), ("Data", run.training)):
        yield from ("", title)
        yield from columns(
            [(name.replace("_", " "), f"{value:.4g}") for name, value in found.items()] or [("nothing",)], left=1
        )


def _lines_of_run(run_dir: Path) -> Iterator[str]:
    facts = read_facts(run_dir)
    return lines_of(*examine(run_dir, facts, paired_run(run_dir)))


def lines_of(numbers: Numbers, dangers: Sequence[Danger]) -> Iterator[str]:
    """Return the report for a terminal."""
    yield f"{numbers.run.name}: {numbers.run.status}"
    for part in (_flow, _spreads, _lengths, _models, _subtopics, _others, _spending):
        yield from _section(part(numbers))
    yield from _section(_warnings(dangers))


def _section(lines: Iterator[str]) -> Iterator[str]:
    found = list(lines)
    yield from ("", *found) if found else ()


def _flow(numbers: Numbers) -> Iterator[str]:
    flow, run = numbers.flow, numbers.run
    rows = [
        ("responses", flow.responses, _reasons(flow.unscored)),
        ("candidates", flow.candidates, _reasons(flow.set_aside, "turns set aside")),
        ("turns", flow.turns, f"{number(flow.turns_with_one_candidate)} with one candidate"),
        ("possible pairs", flow.possible_pairs, _reasons(flow.left_out)),
        ("pairs", flow.pairs, f"of {number(flow.prompts_with_pairs)} prompts"),
    ]
    if run.train_pairs is not None:
        note = "; ".join(filter(None, (f"{number(run.train_pairs)} to train on", _reasons(run.unwritten))))
        rows.append(("written", run.train_pairs + (run.validation_pairs or 0), note))
    yield "From responses to pairs"
    yield from (f"  {name:<16}{number(count):>9}  {note}".rstrip() for name, count, note in rows)


def _reasons(reasons: Mapping[str, int], what: str = "left out") -> str:
    return f"{what}: {in_words(reasons)}" if reasons else ""


def _spreads(numbers: Numbers) -> Iterator[str]:
    found = {
        "score, all": numbers.scores.summaries["all"],
        "score, chosen": numbers.scores.summaries["chosen"],
        "score, rejected": numbers.scores.summaries["rejected"],
        "margin of pairs": numbers.margins.spread.summaries["pairs"],
        "margin of any two": numbers.margins.spread.summaries["all"],
        "characters, chosen": numbers.lengths.chosen,
        "characters, rejected": numbers.lengths.rejected,
    }
    heads = ("", "mean", "lowest", "lower quarter", "median", "upper quarter", "highest")
    yield "Spread"
    yield from columns([heads, *((name, *_summary(one)) for name, one in found.items())], left=1)


def _summary(one: Summary) -> tuple[str, ...]:
    values = (one.mean, one.minimum, one.lower_quartile, one.median, one.upper_quartile, one.maximum)
    return tuple(f"{value:,.4g}" if abs(value) < 10_000 else number(value) for value in values)


def _lengths(numbers: Numbers) -> Iterator[str]:
    lengths = numbers.lengths
    yield f"  the chosen one is longer in {_percent(lengths.share_longer)} of the pairs"
    yield f"  under the median of all margins: {_percent(numbers.margins.under_median)} of the pairs"
    yield f"  ties: {_percent(numbers.ties.rate)} of {number(numbers.ties.comparisons)} comparisons"
    if numbers.agreement is not None:
        yield f"  agreement of the scorers: {_percent(numbers.agreement.mean)}"


def _models(numbers: Numbers) -> Iterator[str]:
    heads = ("model", "candidates", "mean score", "won against others", "chosen", "rejected")
    yield "Models"
    yield from columns([heads, *map(_model, numbers.models)], left=1)


def _model(one: ModelNumbers) -> tuple[str, ...]:
    rate = "-" if one.win_rate is None else f"{_percent(one.win_rate)} of {number(one.comparisons)}"
    counts = number(one.chosen), number(one.rejected)
    return one.name, number(one.candidates), f"{one.mean_score:,.4g}", rate, *counts


def _subtopics(numbers: Numbers) -> Iterator[str]:
    heads = ("subtopic", "turns", "pairs", "mean score", "mean margin", "longer chosen")
    yield "Subtopics"
    yield from columns([heads, *map(_subtopic, numbers.subtopics[:_MOST_SUBTOPICS])], left=1)
    if (more := len(numbers.subtopics) - _MOST_SUBTOPICS) > 0:
        yield f"  and {number(more)} more"


def _subtopic(one: SubtopicNumbers) -> tuple[str, ...]:
    means = f"{one.mean_score:,.4g}", f"{one.mean_margin:,.4g}", _percent(one.share_longer)
    return one.name or "(none)", number(one.turns), number(one.pairs), *means


def _others(numbers: Numbers) -> Iterator[str]:
    found = numbers.duplicates
    if found.count:
        yield f"The same text for several prompts: {number(found.count)}; the most frequent"
        rows = [(number(one.prompts), number(one.won), one.excerpt) for one in found.groups[:_MOST_TEXTS]]
        yield from columns([("prompts", "chosen for", "text"), *rows], left=3)
        if (more := found.count - len(rows)) > 0:
            yield f"  and {number(more)} more"


def _spending(numbers: Numbers) -> Iterator[str]:
    spending = numbers.run.spending
    if spending:
        requests = sum(one.requests for one in spending)
        tokens = sum(one.prompt_tokens + one.completion_tokens for one in spending)
        yield f"Requests {number(requests)}, tokens {number(tokens)}, cost {money(numbers.run.cost)}"


def _warnings(dangers: Sequence[Danger]) -> Iterator[str]:
    yield "Warnings" if dangers else "No warnings"
    for danger in dangers:
        yield f"  {danger.title}"
        yield from (f"    {line}" for line in wrap(f"{danger.seen} {danger.why} {danger.advice}", _WIDTH))


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")
