"""Rollouts of one task → turns: a prefix tree, in which a turn is where the next replies of the assistant differ.

The score of a reply is the mean outcome of the rollouts that go on with it (arXiv 2606.23112; for segments SDPO, arXiv
2501.01821). What a tool, the user or the system said is never a reply.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from statistics import fmean

from nat_dpo_pipeline.core.candidates import Candidate, Turn
from nat_dpo_pipeline.core.filters import is_flawed
from nat_dpo_pipeline.core.messages import (
    Message,
    Rollout,
    exact_key,
    message_of,
    messages_of,
    reply_of,
    without_thoughts,
)
from nat_dpo_pipeline.core.pairs import PairingRules, SkipReason
from nat_dpo_pipeline.core.strategies import CutAt, Thoughts


@dataclass(frozen=True, slots=True)
class Path:
    """A candidate with what it said message by message; `is_flawed` when its last reply did not end well."""

    candidate: Candidate
    messages: tuple[Message, ...]
    is_flawed: bool

    @classmethod
    def of(cls, candidate: Candidate, *, is_flawed: bool) -> "Path":
        response = candidate.response
        messages = response.messages if isinstance(response, Rollout) else (message_of(response),)
        return cls(candidate, messages, is_flawed)

    def key(self, place: int) -> tuple[str, str]:
        """Return what tells a message from the others at its place: ids and thoughts do not."""
        message = self.messages[place]
        return message.role, message.text.strip()


@dataclass(frozen=True, slots=True)
class Branch:
    """A reply as a candidate of its own turn; `is_flawed` when every rollout behind it is."""

    candidate: Candidate
    is_flawed: bool


@dataclass(frozen=True, slots=True)
class _Fork:
    """A place in the tree, and the paths that go on from it, those with the same reply together."""

    place: int
    children: Sequence[Sequence[Path]]


def branched(turns: Iterable[Turn], rules: PairingRules, skipped: Counter[SkipReason]) -> Iterator[Turn]:
    """Yield turns, those of rollouts as turns of single replies; `rules.thoughts` may drop thoughts."""
    if rules.thoughts is Thoughts.DROP:
        turns = map(_unthought, turns)
    for turn in turns:
        if not _holds_rollouts(turn):
            yield turn
            continue
        paths = [Path.of(one, is_flawed=is_flawed(one)) for one in turn.candidates]
        for branches in branches_of(paths, rules, skipped):
            first = branches[0].candidate
            candidates = [branch.candidate for branch in branches]
            yield Turn(first.example_id, first.turn_id, first.prompt, candidates)


def _unthought(turn: Turn) -> Turn:
    return replace(turn, candidates=[replace(one, response=without_thoughts(one.response)) for one in turn.candidates])


def _holds_rollouts(turn: Turn) -> bool:
    for one in turn.candidates:  # noqa: SIM110 - a generator in `any` takes longer, for every turn
        if type(one.response) is Rollout:
            return True
    return False


def branches_of(paths: Sequence[Path], rules: PairingRules, skipped: Counter[SkipReason]) -> Iterator[Sequence[Branch]]:
    """Yield the turns of paths that begin with one prompt.

    Pairs of which a reply has fewer than `rules.min_rollouts` rollouts behind it are counted in `skipped`.
    """
    for fork in list(_forks(paths, _cut(paths, rules))) or list(_last(paths)):
        kept = [child for child in fork.children if len(child) >= rules.min_rollouts]
        if left := _pairs_of(len(fork.children)) - _pairs_of(len(kept)):
            skipped[SkipReason.BELOW_MIN_ROLLOUTS] += left
        if kept:
            yield _turn(fork.place, kept)


def _cut(paths: Iterable[Path], rules: PairingRules) -> CutAt:
    """Return where rollouts are cut: unless it is set, those without calls before their last reply."""
    if rules.at is not None:
        return rules.at
    return CutAt.DIVERGENCE if any(one.tool_calls for path in paths for one in path.messages) else CutAt.LAST


def _forks(paths: Sequence[Path], cut: CutAt) -> Iterator[_Fork]:
    if cut is CutAt.LAST:
        yield from _last(paths)
    elif cut is CutAt.FIRST:
        yield _Fork(0, _together(paths, 0))
    else:
        yield from _differing(paths, cut)


def _differing(paths: Sequence[Path], cut: CutAt) -> Iterator[_Fork]:
    """Yield the places where replies differ: the first of each branch, or with `every` all."""
    waiting = [(0, paths)]
    while waiting:
        place, here = waiting.pop()
        children = _together([one for one in here if len(one.messages) > place], place)
        replies = [child for child in children if child[0].messages[place].role == "assistant"]
        is_fork = len(replies) > 1
        if is_fork:
            yield _Fork(place, replies)
        on = children if not is_fork or cut is CutAt.EVERY else [child for child in children if child not in replies]
        waiting.extend((place + 1, child) for child in reversed(on) if len(child) > 1)


def _last(paths: Sequence[Path]) -> Iterator[_Fork]:
    """Yield the last reply of each path, those after the same conversation together, each a candidate of its own."""
    found: dict[tuple[tuple[str, str], ...], list[Path]] = {}
    for path in paths:
        found.setdefault(tuple(map(path.key, range(_last_reply(path)))), []).append(path)
    for same in found.values():
        yield _Fork(_last_reply(same[0]), [[path] for path in same])


def _last_reply(path: Path) -> int:
    return max(place for place, one in enumerate(path.messages) if one.role == "assistant")


def _together(paths: Iterable[Path], place: int) -> list[list[Path]]:
    found: dict[tuple[str, str], list[Path]] = {}
    for path in paths:
        found.setdefault(path.key(place), []).append(path)
    return list(found.values())


def _turn(place: int, children: Sequence[Sequence[Path]]) -> list[Branch]:
    """Return the replies at a place as candidates of a turn, whose id says where in the rollouts it is."""
    first = children[0][0]
    prompt = first.candidate.prompt
    if place:
        asked = messages_of(prompt) if isinstance(prompt, str) else prompt
        prompt = (*asked, *first.messages[:place])
    # The same place after different results of tools is another turn.
    name = f"{place}-{blake2b(exact_key(prompt).encode(), digest_size=4).hexdigest()}"
    turn_id = f"{first.candidate.turn_id}/{name}".removeprefix("/")
    return [
        Branch(
            replace(
                child[0].candidate,
                turn_id=turn_id,
                prompt=prompt,
                response=reply_of(child[0].messages[place]),
                score=_outcome(child),
                metadata={**child[0].candidate.metadata, "rollouts": len(child), "message": place},
            ),
            is_flawed=all(path.is_flawed for path in child),
        )
        for child in children
    ]


def _outcome(child: Sequence[Path]) -> float:
    """Return the mean score; that of a rollout which was cut off says little of what came before."""
    whole = [path.candidate.score for path in child if not path.is_flawed]
    return fmean(whole or [path.candidate.score for path in child])


def _pairs_of(count: int) -> int:
    return count * (count - 1) // 2
