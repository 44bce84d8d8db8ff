"""Order of scores: which of two is higher, and which differ only by rounding."""

#: Largest relative difference of scores that are a tie. The sums, weights and means that make a score are exact to some
#: 1e-15 a step (0.1 + 0.2 is 0.30000000000000004), and no scorer means a difference in the ninth digit.
ROUNDING = 1e-9


def is_higher(one: float, other: float) -> bool:
    """Return True when `one` is above `other` by more than rounding; neither of two scores is higher in a tie."""
    return one - other > ROUNDING * abs(one)
