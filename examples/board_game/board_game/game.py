"""Connect Three: stones dropped into four columns of four; three in a row win, in any direction.

Solved by search, so that the worth of every move is known.
"""

from dataclasses import dataclass
from functools import cache

SIZE = 4
CELLS = SIZE * SIZE
_EMPTY = "."
_STEPS = ((1, 0), (0, 1), (1, 1), (1, -1))
#: The cells of every three in a row.
_LINES = tuple(
    tuple((row + n * up) * SIZE + column + n * right for n in range(3))
    for right, up in _STEPS
    for column in range(SIZE - 2 * right)
    for row in (range(2, SIZE) if up < 0 else range(SIZE - 2 * up))
)


@dataclass(frozen=True, slots=True)
class Position:
    """Sixteen cells, row by row from the bottom: X, O or a dot. X begins."""

    cells: str = _EMPTY * CELLS

    @property
    def stones(self) -> int:
        return CELLS - self.cells.count(_EMPTY)

    @property
    def player(self) -> str:
        return "XO"[self.stones % 2]

    def moves(self) -> list[int]:
        """The columns, from 1, that are not full; none when the game is over."""
        if self.is_won():
            return []
        return [number for number, top in enumerate(self.cells[-SIZE:], start=1) if top == _EMPTY]

    def after(self, move: int) -> "Position":
        """The stone falls to the lowest free cell. Raises ValueError for a move that is not legal."""
        if move not in self.moves():
            raise ValueError(f"{move!r} is no legal move; legal are {self.moves()}")
        cell = next(cell for cell in range(move - 1, CELLS, SIZE) if self.cells[cell] == _EMPTY)
        return Position(self.cells[:cell] + self.player + self.cells[cell + 1 :])

    def is_won(self) -> bool:
        """By whoever moved last."""
        cells = self.cells
        return any(cells[first] == cells[second] == cells[third] != _EMPTY for first, second, third in _LINES)

    def __str__(self) -> str:
        rows = [" ".join(self.cells[row : row + SIZE]) for row in range(CELLS - SIZE, -1, -SIZE)]
        return "\n".join([*rows, " ".join(map(str, range(1, SIZE + 1)))])


def worth(position: Position, move: int) -> int:
    """What a move is worth to who makes it, when both go on without a mistake: 0 a draw, above 0 a win and below 0 a
    loss; the sooner the win and the later the loss, the more."""
    return -_outlook(position.after(move))


@cache
def _outlook(position: Position) -> int:
    """Negamax, for who is to move."""
    if position.is_won():
        return position.stones - CELLS - 1
    return max((-_outlook(position.after(move)) for move in position.moves()), default=0)
