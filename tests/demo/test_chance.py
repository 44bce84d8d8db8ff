import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.demo.chance import Chance

CHANCES = st.builds(Chance, st.integers(), st.none() | st.integers(), st.integers(0, 9))


def test_draws_are_the_same_in_every_process() -> None:
    program = "from nat_dpo_pipeline.demo.chance import Chance; print(Chance(1, 2, 3).number('key', 4))"
    runs = {
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert runs == {f"{Chance(1, 2, 3).number('key', 4)}\n"}


@given(chance=CHANCES, items=st.lists(st.text(), min_size=1, unique=True))
def test_items_are_drawn_from_those_given(chance: Chance, items: list[str]) -> None:
    assert chance.pick(items, "key") in items
    assert chance.rotated(items, "key") in items
    assert sorted(chance.shuffled(items, "key")) == sorted(items)


@given(seed=st.integers(0), items=st.lists(st.text(), min_size=1, unique=True))
def test_rotation_meets_every_item_once(seed: int, items: list[str]) -> None:
    drawn = [Chance(0, seed, place).rotated(items, "key") for place in range(len(items))]
    assert sorted(drawn) == sorted(items)


def test_each_seed_and_the_place_matter() -> None:
    chances = [Chance(0), Chance(1), Chance(0, 0), Chance(0, 1), Chance(0, None, 1)]
    assert len({chance.number("key") for chance in chances}) == len(chances)
