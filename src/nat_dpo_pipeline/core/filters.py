"""Why a candidate, or two of them, should not be trained on. Each is a question with one limit; True leaves out."""

from collections.abc import Mapping

from nat_dpo_pipeline.core.candidates import Candidate, finite_number
from nat_dpo_pipeline.core.ties import is_higher

#: What `flaw` in a candidate's metadata says when it counts; anything else there is somebody else's.
FLAWS = frozenset(
    ("truncated", "refusal", "empty", "only_thoughts", "filtered", "tool_call", "content_not_text", "unknown_ending")
)


def is_blank(candidate: Candidate) -> bool:
    return not candidate.response.strip()


def is_flawed(candidate: Candidate) -> bool:
    """Return whether the metadata mark the answer as cut, filtered, declining or empty."""
    flaw = candidate.metadata.get("flaw")
    return isinstance(flaw, str) and flaw in FLAWS


def is_over_max_score_diff(limit: float, chosen: Candidate, rejected: Candidate) -> bool:
    return chosen.score - rejected.score > limit


def is_below_min_chosen_score(limit: float, chosen: Candidate, _rejected: Candidate) -> bool:
    return chosen.score < limit


def is_below_min_rejected_score(limit: float, _chosen: Candidate, rejected: Candidate) -> bool:
    return rejected.score < limit


def is_below_min_rejected_length(limit: float, _chosen: Candidate, rejected: Candidate) -> bool:
    return len(rejected.response) < limit


def is_over_max_length_ratio(limit: float, chosen: Candidate, rejected: Candidate) -> bool:
    """Whether the longer text has more than `limit` times the characters of the shorter one."""
    lengths = len(chosen.response), len(rejected.response)
    return max(lengths) > limit * min(lengths)


def lacks_member_scores(_limit: float, chosen: Candidate, rejected: Candidate) -> bool:
    """Whether no member of an ensemble scored both."""
    return not _members(chosen).keys() & _members(rejected).keys()


def is_below_min_agreement(limit: float, chosen: Candidate, rejected: Candidate) -> bool:
    """Whether less than this share of the ensemble has `chosen` above; a member that scored only one has not."""
    ours, theirs = _members(chosen), _members(rejected)
    above = sum(is_higher(ours[name], theirs[name]) for name in ours.keys() & theirs.keys())
    return above < limit * len(ours.keys() | theirs.keys())


def is_near_duplicate(limit: float, chosen: Candidate, rejected: Candidate) -> bool:
    """Whether the texts are alike to `limit` or more: twice their common characters, in order, over all characters."""
    # Imported here: it takes 25 ms, which every `nat` command would pay.
    from rapidfuzz.fuzz import ratio

    texts = (" ".join(one.response.split()) for one in (chosen, rejected))
    return ratio(*texts, score_cutoff=100 * limit) >= 100 * limit


def _members(candidate: Candidate) -> Mapping[str, float]:
    scores = candidate.metadata.get("member_scores")
    if not isinstance(scores, Mapping):
        return {}
    numbers = ((str(name), finite_number(score)) for name, score in scores.items())
    return {name: number for name, number in numbers if number is not None}
