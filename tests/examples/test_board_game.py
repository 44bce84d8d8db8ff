"""The worked example, as its README says to run it: a game that is solved by search becomes pairs."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.own_module import install_project, run_nat

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "board_game"
_PROMPT = re.compile(r"((?:[XO.] [XO.] [XO.] [XO.]\n){4})1 2 3 4\n\nYou are ([XO])\. Which column do you choose\?")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The data set that the command makes."""
    place = tmp_path_factory.mktemp("board_game")
    (place / "examples").symlink_to(ROOT / "examples")
    install_project(place, EXAMPLE)
    told = run_nat(place, "finetune", "--config_file", "examples/board_game/config.yml", modules=(EXAMPLE,))
    assert "Traceback" not in told
    assert "  candidates            1958" in told
    files = sorted((place / "runs" / "board_game" / "dataset" / "trl").glob("*.jsonl"))
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def game() -> Any:
    sys.path.insert(0, str(EXAMPLE))
    try:
        from board_game import game
    finally:
        sys.path.remove(str(EXAMPLE))
    return game


def _position(row: dict[str, Any], game: Any) -> Any:
    match = _PROMPT.fullmatch(row["prompt"][0]["content"])
    assert match is not None
    position = game.Position("".join(reversed([line.replace(" ", "") for line in match[1].split("\n")])))
    assert position.player == match[2]
    return position


def _move(message: list[dict[str, str]]) -> int:
    return int(message[0]["content"].removeprefix("Column "))


def test_moves_are_legal_and_the_chosen_one_is_better_by_search(rows: list[dict[str, Any]], game: Any) -> None:
    assert len(rows) == 566
    for row in rows:
        position = _position(row, game)
        chosen, rejected = _move(row["chosen"]), _move(row["rejected"])
        assert {chosen, rejected} <= set(position.moves())
        worths = [game.worth(position, move) for move in (chosen, rejected)]
        assert worths == [16 * row["chosen_score"], 16 * row["rejected_score"]]
        assert worths[0] - worths[1] >= 8


def test_a_move_that_wins_at_once_is_never_rejected(rows: list[dict[str, Any]], game: Any) -> None:
    positions = [(_position(row, game), row) for row in rows]
    wins = [(position.after(_move(row["chosen"])).is_won(), row) for position, row in positions]
    assert sum(won for won, _ in wins) > 50
    assert not any(position.after(_move(row["rejected"])).is_won() for position, row in positions)


def test_the_search_agrees_with_what_can_be_counted_by_hand(game: Any) -> None:
    position = game.Position()
    assert str(position) == ". . . .\n" * 4 + "1 2 3 4"
    for move in (1, 4, 1, 4):
        position = position.after(move)
    # X wins at once in column 1; whatever else it does, O wins at once in column 4, unless X is there first.
    assert [game.worth(position, move) for move in (1, 2, 3)] == [12, -11, -11]
    assert position.after(1).is_won()
    assert position.after(1).moves() == []
    with pytest.raises(ValueError, match="5 is no legal move"):
        position.after(5)
    full = game.Position()
    for move in (1, 1, 1, 1):
        full = full.after(move)
    assert full.moves() == [2, 3, 4]
