"""Games of Connect Three as a NAT workflow: each position is a turn, each legal move a candidate."""

from collections.abc import AsyncIterator
from random import Random

from nat.plugin_api import Builder, FunctionBaseConfig, FunctionInfo, register_function
from pydantic import Field

from board_game.game import CELLS, Position, worth
from nat_dpo_pipeline.plugin.capture import emit_candidates


class ConnectThreeConfig(FunctionBaseConfig, name="connect_three"):
    """Plays on from an opening, given as columns such as "2 3 3"."""

    mistakes: float = Field(default=0.5, ge=0, le=1, description="Share of the moves that are left to chance.")
    seed: int = Field(default=0, description="Same seed, same games.")


@register_function(config_type=ConnectThreeConfig)
async def connect_three(config: ConnectThreeConfig, builder: Builder) -> AsyncIterator[FunctionInfo]:
    async def play(opening: str) -> str:
        position = Position()
        for move in opening.split():
            position = position.after(int(move))
        chance = Random(f"{config.seed} {opening}")
        while moves := position.moves():
            scores = [worth(position, move) / CELLS for move in moves]
            emit_candidates(
                prompt=f"{position}\n\nYou are {position.player}. Which column do you choose?",
                responses=[f"Column {move}" for move in moves],
                scores=scores,
                metadata=[{"cells": position.cells, "move": move} for move in moves],
            )
            best = moves[scores.index(max(scores))]
            position = position.after(chance.choice(moves) if chance.random() < config.mistakes else best)
        return f"{position}\n\n" + ("won" if position.is_won() else "drawn")

    yield FunctionInfo.from_fn(play, description=ConnectThreeConfig.__doc__)
