import pytest

from nat_dpo_pipeline.demo import library
from nat_dpo_pipeline.demo.shelves import MODULES

EVERYTHING = [member for module in MODULES for member in library.members(module)]


def test_every_module_stands_on_one_shelf() -> None:
    assert len(set(MODULES)) == len(MODULES)


def test_most_modules_have_much_to_ask_about() -> None:
    assert len(EVERYTHING) > 1000
    assert sum(len(library.members(module)) > 1 for module in MODULES) > 0.9 * len(MODULES)


def test_members_are_found_by_their_dotted_names() -> None:
    assert all(library.find(member.dotted) == member for member in EVERYTHING)


def test_every_member_has_something_readable_to_say() -> None:
    for member in EVERYTHING:
        assert member.first_sentence.endswith((".", "!", "?"))
        assert "\n" not in member.summary
        assert len(member.summary.split()) >= 3


def test_nothing_that_differs_from_run_to_run_is_told() -> None:
    assert not [member.dotted for member in EVERYTHING if " at 0x" in member.parameters]


def test_a_method_is_told_without_the_object_it_is_bound_to() -> None:
    assert not [member.dotted for member in EVERYTHING if member.parameters.startswith("(self,")]


@pytest.mark.parametrize("name", ["os", "nothing", "heapq.nlargest", ""])
def test_modules_off_the_shelves_have_no_members(name: str) -> None:
    assert library.members(name) == ()


@pytest.mark.parametrize("dotted", ["heapq", "heapq.", "heapq.nothing", "os.path", "", ".", "typing.Text"])
def test_what_is_no_member_is_not_found(dotted: str) -> None:
    assert library.find(dotted) is None


def test_names_in_backticks_are_recognised() -> None:
    text = "Is `heapq.heappop()` the inverse of `heapq.heappush`, `heapq.heappush` of `x.y`, or bisect.insort?"
    assert [member.dotted for member in library.named_in(text)] == ["heapq.heappop", "heapq.heappush"]
