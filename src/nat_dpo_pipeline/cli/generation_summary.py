"""The summaries of `nat dpo generate`: of a run, a preview and a plan, as lines of plain text."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import shorten, wrap

from nat_dpo_pipeline.cli.report import written_after
from nat_dpo_pipeline.cli.summaries import (
    columns,
    counted,
    dataset_files,
    duration,
    in_words,
    money,
    number,
    pairs_of,
    tokens_of,
    training_of,
)
from nat_dpo_pipeline.core import candidates as scored
from nat_dpo_pipeline.core.pairs import PairingRules, PreferencePair, SkipReason, pair_turn
from nat_dpo_pipeline.core.printable import listed
from nat_dpo_pipeline.dataset.run_files import CANDIDATES, FAILURES, SET_ASIDE
from nat_dpo_pipeline.dataset.writer import WrittenDataset
from nat_dpo_pipeline.generation import plan as estimate
from nat_dpo_pipeline.generation.plan import Plan, PlannedCalls
from nat_dpo_pipeline.generation.record import Failure, FailureReason, GenerationRecord
from nat_dpo_pipeline.generation.settings import StepName
from nat_dpo_pipeline.generation.turns import Turn
from nat_dpo_pipeline.plugin.commands.generation import Outcome, RunStatus

_WIDTH = 100
_AGAIN = "The same command goes on from here; nothing that was answered is asked or paid for again."
_MOST_DETAILS = 5
_LINES_OF_A_RESPONSE = 6
_ADVICE = {
    FailureReason.MALFORMED_INPUT: "mend these inputs",
    FailureReason.UNPARSABLE_REPLY: "the replies are in the file; another model or a lower temperature may keep to "
    "the form",
    FailureReason.EMPTY_REPLY: "look at what the server sends; another model or a higher temperature may say more",
    FailureReason.TRUNCATED_REPLY: "raise max_tokens (sampling.responses.max_tokens), or set keep_truncated",
    FailureReason.ONLY_THOUGHTS: "the thoughts used up the tokens: raise max_tokens (sampling.<step>.max_tokens), or "
    "have the model think less",
    FailureReason.REFUSAL: "they teach to refuse; keep_refusals: true scores them all the same",
    FailureReason.FILTERED_REPLY: "a content filter of the service stopped these; another model may answer",
    FailureReason.TOOL_CALL: "the model calls tools instead of answering: leave them out of its extra_body",
    FailureReason.CONTENT_NOT_TEXT: "the file names what was sent in place of text; ask a model that answers in text",
    FailureReason.UNKNOWN_ENDING: "the file has the server's finish_reason; these may be no whole answers",
    FailureReason.MODEL_ERROR: "the same command asks again for what failed",
    FailureReason.REQUEST_REFUSED: "the file says why, for instance too long for the model; asking again is of no use",
}
_MISSING = {
    StepName.SUBTOPICS: "raise max_top_ups, or ask for fewer n_subtopics",
    StepName.QUESTIONS: "raise max_top_ups, or ask for fewer n_questions",
    StepName.RESPONSES: "what came repeated another one, or could not be read",
}
_DUPLICATES = ("duplicate_subtopics", "duplicate_questions", "duplicate_responses")


def run_lines(outcome: Outcome, seconds: float) -> Iterator[str]:
    """Return the summary of a run that took so many seconds."""
    record, dataset = outcome.record, outcome.dataset
    is_over = outcome.status in (RunStatus.COMPLETE, RunStatus.EMPTY)
    ended = "Ended" if is_over and no_result(outcome) else outcome.status.capitalize()
    yield f"{ended} after {duration(seconds)}."
    if not is_over:
        yield _AGAIN
    yield ""
    yield from counts_of(record)
    yield from stood_in_for(record)
    if dataset is not None:
        yield from pairs_of(dataset)
    for lines in (failures_of(record, outcome.folder), spending_of(record)):
        yield from ("", *lines) if lines else ()
    yield from replayed_of(record)
    yield ""
    yield from files_of(outcome.folder, dataset.dataset if dataset else None, record.counts)
    yield written_after(outcome.folder)


def no_result(outcome: Outcome) -> str | None:
    """Return the reason why a run left nothing to train on, or None."""
    if not outcome.record.counts["candidates"]:
        return no_candidate(outcome.first_failure)
    if outcome.dataset is not None and not any(outcome.dataset.pairs.values()):
        why = "why, it says above at `pairs left out`" if outcome.dataset.skipped else "no question has two of them"
        return f"no pair was made of the candidates; {why}"
    return None


def no_candidate(first: Failure | None) -> str:
    """Return the error of a run without candidates, with its first failure."""
    return "not one candidate was made" + ("" if first is None else f": {first.detail}")


def preview_summary(record: GenerationRecord, plan: Plan) -> Iterator[str]:
    """Return the spending of a preview, and the plan of the whole run measured by it."""
    yield "The preview took"
    yield from spending_of(record)
    if failures := failures_of(record):
        yield from ("", *failures)
    yield from ("", "The whole run would take", *plan_lines(plan, measured=True))


def counts_of(record: GenerationRecord) -> list[str]:
    """How much came of the inputs."""
    counts = record.counts
    names = ("topics", "subtopics", "questions", "responses", "candidates")
    lines = [f"  {name:<12}{number(counts[name]):>9}" for name in names if counts[name] or name == "candidates"]
    repeats = Counter({name.removeprefix("duplicate_"): counts[name] for name in _DUPLICATES})
    if repeats.total():
        told = ", ".join(counted(count, name.removesuffix("s")) for name, count in repeats.items() if count)
        lines.append(f"  repeats replaced or left out: {told}")
    lines += _missing(record)
    if set_aside := _starting_with("questions_", counts):
        lines.append(f"  questions set aside, with their responses: {in_words(set_aside)}")
    if endings := _starting_with("finish_reason_", counts):
        lines.append(f"  replies with an unknown finish_reason: {listed(endings)}")
    dropped = _starting_with("dropped_", counts)
    return [*lines, f"  dropped by the pipeline: {in_words(dropped)}"] if dropped else lines


def _starting_with(prefix: str, counts: Mapping[str, int]) -> dict[str, int]:
    return {name.removeprefix(prefix): count for name, count in counts.items() if name.startswith(prefix)}


def _missing(record: GenerationRecord) -> Iterator[str]:
    for step, advice in _MISSING.items():
        if count := record.counts[f"missing_{step}"]:
            failed = record.skips().get(step, {})
            again = "; the same command makes failed calls again" if FailureReason.MODEL_ERROR in failed else ""
            why = f"{in_words(failed)}{again}" if failed else advice
            yield f"  {number(count)} {step} fewer than asked for: {why}"


def stood_in_for(record: GenerationRecord) -> list[str]:
    """A line for each model that ended while others of its pool went on."""
    return [f"  others of its pool stood in for {llm}: {message}" for llm, message in record.stood_in_for.items()]


def failures_of(record: GenerationRecord, folder: Path | None = None) -> list[str]:
    """What went wrong, by step and reason, and what to do about it."""
    rows = [
        (number(count), step, reason.replace("_", " "), _ADVICE.get(FailureReason(reason), ""))
        for step, reasons in record.skips().items()
        for reason, count in reasons.items()
    ]
    if not rows:
        return []
    where = "" if folder is None else f", one by one in {folder / FAILURES}"
    table = columns([("", "step", "reason", "what to do"), *rows], left=4)
    return [f"Failures{where}", *table, *_details(record, folder)]


def _details(record: GenerationRecord, folder: Path | None) -> Iterator[str]:
    for failure in record.failures[:_MOST_DETAILS]:
        yield f"  {failure.step}: {shorten(failure.detail, 3 * _WIDTH)}"
    if folder is None and (more := len(record.failures) - _MOST_DETAILS) > 0:
        yield f"  and {number(more)} more"


def spending_of(record: GenerationRecord) -> list[str]:
    """Requests, tokens and cost by step and model."""
    if not record.usage:
        return []
    usage = [
        (step, llm, used, record.prices.get(llm)) for (step, llm), used in sorted(record.usage.items(), key=_order)
    ]
    replayed = any(used.replayed for *_, used, _ in usage)
    rows = [
        (
            step,
            f"{llm} ({used.model})" if used.model not in ("", llm) else llm,
            number(used.requests),
            number(used.retries),
            number(used.replayed),
            *tokens_of(used.prompt_tokens, used.completion_tokens, used.uncounted),
            money(used.cost(price)),
        )
        for step, llm, used, price in usage
    ]
    total = ("total", "", *(number(sum(getattr(used, name) for *_, used, _ in usage)) for name in _SUMMED))
    heads = ("step", "model", "requests", "retried", "replayed", "prompt tokens", "reply tokens", "cost")
    has_costs = any(used.cost(price) is not None for *_, used, price in usage)
    shown = [place for place in range(8) if (place != 4 or replayed) and (place != 7 or has_costs)]
    table = [heads, *rows, (*total, money(record.total_cost()))]
    lines = columns([[row[place] for place in shown] for row in table], left=2)
    uncounted = sum(used.uncounted for *_, used, _ in usage)
    without = f"  without the tokens of {counted(uncounted, 'reply')}, which the server did not count"
    return [*lines, without] if uncounted else lines


_SUMMED = ("requests", "retries", "replayed", "prompt_tokens", "completion_tokens")
_ORDER = {str(step): place for place, step in enumerate(StepName)}


def _order(entry: tuple[tuple[str, str], object]) -> tuple[int, str, str]:
    (step, llm), _ = entry
    return _ORDER.get(step, len(_ORDER)), step, llm


def replayed_of(record: GenerationRecord) -> list[str]:
    """What was paid for before."""
    replayed = sum(used.replayed for used in record.usage.values())
    if not replayed:
        return []
    costs = [used.cost_before(record.prices.get(llm)) for (_, llm), used in record.usage.items()]
    known = [cost for cost in costs if cost is not None]
    worth = f", worth {money(sum(known))}" if known else ""
    return [f"  {counted(replayed, 'reply')} from the journal{worth}: not asked or paid for again"]


def files_of(folder: Path, dataset: WrittenDataset | None, counts: Mapping[str, int]) -> list[str]:
    """Where everything is."""
    rows = [(str(folder / CANDIDATES), f"{number(counts['candidates'])} candidates")]
    if (folder / SET_ASIDE).exists():
        rows.append((str(folder / SET_ASIDE), "questions that cannot be paired, with the reasons"))
    if dataset is None:
        return ["Files", *columns(rows, left=2)]
    return ["Files", *columns([*rows, *dataset_files(dataset)], left=2), *training_of(dataset)]


def plan_lines(plan: Plan, *, measured: bool = False) -> list[str]:
    """The plan as a table, and what was assumed for it."""
    rows = [(_planned(row), _amounts(row)) for row in plan.rows]
    total = (
        number(sum(row.calls for row in plan.rows)),
        number(sum(row.prompt_tokens for row in plan.rows)),
        number(sum(row.completion_tokens for row in plan.rows)),
        money(plan.cost),
    )
    heads = ("step", "model", "calls", "prompt tokens", "reply tokens", "cost")
    table = [heads, *((*names, *amounts) for names, amounts in rows), ("total", "", *total)]
    shown = range(6 if plan.prices else 5)
    return [
        _subject(plan),
        *columns([[row[place] for place in shown] for row in table], left=2),
        "",
        *(f"  {line}" for text in _assumptions(plan, measured=measured) for line in wrap(text, _WIDTH)),
    ]


def _planned(row: PlannedCalls) -> tuple[str, str]:
    return row.step, ", ".join(row.llms)


def _amounts(row: PlannedCalls) -> tuple[str, str, str, str]:
    return number(row.calls), number(row.prompt_tokens), number(row.completion_tokens), money(row.cost)


def _subject(plan: Plan) -> str:
    inputs = plan.inputs
    given = [
        counted(count, name) for name, count in (("topic", inputs.topics), ("question", inputs.questions)) if count
    ]
    is_or_are = "is" if inputs.malformed == 1 else "are"
    malformed = f" ({counted(inputs.malformed, 'malformed input')} {is_or_are} left out)" if inputs.malformed else ""
    written = [counted(plan.questions, "question")] if inputs.topics else []
    chain = [f"{' and '.join(given) or 'nothing'}{malformed}", *written, counted(plan.responses, "response")]
    return " → ".join(chain)


def _assumptions(plan: Plan, *, measured: bool) -> Iterator[str]:
    yield "Calls are exact when nothing goes wrong; repeats, unreadable replies and failed calls take more."
    if measured:
        yield "Tokens are those that the preview took, for so many calls."
    else:
        yield (
            f"Tokens are estimates: {estimate.CHARACTERS_A_TOKEN} characters a token; a subtopic has "
            f"{estimate.SUBTOPIC_TOKENS} tokens, a question {estimate.QUESTION_TOKENS}, a response "
            f"{estimate.RESPONSE_TOKENS}, a judgement {estimate.JUDGEMENT_TOKENS} ({number(estimate.GENRM_TOKENS)} of "
            "a genrm, which reasons first), or max_tokens where that is less. --preview measures them."
        )
    if not plan.prices:
        yield "No cost is told without `prices` in the workflow."


def preview_lines(turns: Iterable[Turn], rules: PairingRules) -> list[str]:
    """Every question of a preview with its responses, their scores, and which would be paired."""
    return [line for number, turn in enumerate(turns, start=1) for line in _previewed(number, turn, rules)]


def _previewed(place: int, turn: Turn, rules: PairingRules) -> Iterator[str]:
    yield f"Question {place}: {shorten(turn.question.text, 4 * _WIDTH)}"
    candidates = turn.candidates
    skipped: Counter[SkipReason] = Counter()
    prompt = turn.question.messages
    pairs = [] if turn.set_aside else pair_turn(scored.Turn("", turn.turn_id, prompt, candidates), rules, skipped)
    widest = pairs[0] if pairs else None
    for candidate in sorted(candidates, key=lambda one: -one.score):
        by = f"{candidate.metadata['llm']}{_role(candidate, widest)}"
        yield f"  [{candidate.candidate_index}] {candidate.score:g} by {by}"
        yield from _excerpt(candidate.response)
    for one in turn.unscored:
        yield f"  [{one.response.index}] no score by {one.response.llm}: {one.detail or one.reason}"
        yield from _excerpt(one.response.text)
    yield f"  → {_pairing(pairs, turn, skipped)}"
    yield ""


def _role(candidate: scored.Candidate, widest: PreferencePair | None) -> str:
    if widest is None:
        return ""
    return "  ← chosen" if candidate is widest.chosen else "  ← rejected" if candidate is widest.rejected else ""


def _excerpt(text: str) -> Iterator[str]:
    lines = [part for line in text.splitlines() for part in (wrap(line, _WIDTH - 6) or [""])]
    yield from (f"      {line}".rstrip() for line in lines[:_LINES_OF_A_RESPONSE])
    if len(lines) > _LINES_OF_A_RESPONSE:
        yield f"      … ({number(len(text))} characters)"


def _pairing(pairs: Sequence[PreferencePair], turn: Turn, skipped: Mapping[SkipReason, int]) -> str:
    if turn.set_aside:
        return f"set aside: {turn.set_aside.replace('_', ' ')}"
    reasons = {str(reason): count for reason, count in skipped.items()}
    left_out = f"; left out: {in_words(reasons)}" if reasons else ""
    if not pairs:
        return f"no pair{left_out}"
    first = pairs[0]
    more = f" and {len(pairs) - 1} more" if len(pairs) > 1 else ""
    return (
        f"pair [{first.chosen.candidate_index}] over [{first.rejected.candidate_index}], {first.margin:g} apart"
        f"{more}{left_out}"
    )
