import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any, Optional

import pytest

from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.generation.steps import (
    Aggregate,
    Broadcast,
    Callback,
    Emit,
    Item,
    Map,
    Pipeline,
    Scatter,
    Step,
    derived,
)


async def length(item: Item[str]) -> int:
    return len(item.value)


async def text(item: Item[int]) -> str:
    return str(item.value)


async def letters(item: Item[str]) -> list[str]:
    return list(item.value)


async def words(item: Item[str]) -> AsyncIterator[str]:
    for word in item.value.split():
        yield word


def copied(item: Item[str], index: int) -> str:
    return f"{item.value}{index}"


def joined(item: Item[str], members: Sequence[Item[str]]) -> str | None:
    return f"{item.value}={','.join(member.value for member in members)}" if members else None


def total(item: Item[str], members: Sequence[Item[int]]) -> int:
    return len(item.value) + sum(member.value for member in members)


async def passed(items: AsyncIterator[Item[str]]) -> AsyncGenerator[Item[str], None]:
    async for item in items:
        yield item


class Shout:
    """A step function with a state."""

    async def __call__(self, item: Item[str]) -> str:
        return item.value.upper()


class Echo:
    """The same as a generator, and with a method."""

    async def __call__(self, item: Item[str]) -> AsyncIterator[str]:
        yield item.value
        yield item.value

    async def _once(self, item: Item[str]) -> str:
        return item.value


async def _run(pipeline: Pipeline, *inputs: object) -> list[Any]:
    items = [item async for item in pipeline.run(inputs)]
    return [item.value for item in sorted(items, key=lambda item: item.path)]


@pytest.mark.parametrize(
    ("step", "name", "takes", "gives"),
    [
        (Map(length), "length", str, int),
        (Map(length, name="size"), "size", str, int),
        (Map(Shout()), "Shout", str, str),
        (Map(Echo()._once), "once", str, str),  # noqa: SLF001 - the name of a private method
        (Scatter(letters), "letters", str, str),
        (Scatter(words), "words", str, str),
        (Broadcast(2, copied), "copied", str, str),
        (Aggregate(total, over="x"), "total", int, int),
        (Aggregate(joined, over="x"), "joined", str, str),
        (Callback(passed), "passed", str, str),
    ],
)
def test_a_step_has_the_name_of_its_function_and_the_types_of_its_annotations(
    step: Step, name: str, takes: object, gives: object
) -> None:
    assert (step.name, step.takes, step.gives) == (name, takes, gives)


def test_a_step_shows_what_it_is() -> None:
    assert repr(Map(length)) == "Map('length', str → int)"
    assert repr(Scatter(words, name="cut")) == "Scatter('cut', str → str)"


def test_an_aggregate_gives_what_its_function_gives_when_it_gives_something() -> None:
    def either(item: Item[str], members: Sequence[Item[str]]) -> int | str | None: ...

    def older(item: Item[str], members: Sequence[Item[str]]) -> Optional[int]: ...  # noqa: UP045 - the older spelling

    assert Aggregate(either, over="x").gives == int | str
    assert Aggregate(older, over="x").gives is int


async def test_a_bare_item_is_of_anything() -> None:
    async def kind(item: Item) -> str:  # type: ignore[type-arg]
        return type(item.value).__name__

    def count(_, members: Sequence[Item]) -> int:  # type: ignore[no-untyped-def, type-arg]
        return len(members)

    pipeline = Map(length) >> Map(kind) >> Aggregate(count, over="length")
    assert await _run(pipeline, "abc") == [1]


# Chains.


async def test_steps_are_chained_in_every_way_of_putting_the_brackets() -> None:
    one = Scatter(words) >> Map(length) >> Map(text)
    other = Scatter(words) >> (Map(length) >> Map(text))
    appended = Pipeline() << Scatter(words) << Map(length) << Map(text)
    assert [step.name for step in one.steps] == ["words", "length", "text"]
    for pipeline in (one, other, appended, Pipeline() >> one):
        assert await _run(pipeline, "a bb ccc") == ["1", "2", "3"]


async def test_a_pipeline_without_steps_hands_its_input_on() -> None:
    assert await _run(Pipeline(), 1, 2) == [1, 2]


def test_a_pipeline_is_never_changed() -> None:
    pipeline = Scatter(words) >> Map(length)
    names = [step.name for step in pipeline.steps]
    pipeline >> Map(text)
    pipeline.before("words", Scatter(letters))
    pipeline.after("length", Map(text))
    pipeline.replaced("words", Scatter(letters))
    pipeline.without("words")
    assert [step.name for step in pipeline.steps] == names


def test_steps_are_added_replaced_and_dropped_by_name() -> None:
    pipeline = Scatter(words) >> Map(length)
    changed = {
        "before": pipeline.before("length", Map(Shout()), Map(Shout(), name="louder")),
        "after": pipeline.after("words", Map(Shout()), Map(Shout(), name="louder")),
        "replaced": pipeline.replaced("words", Scatter(letters)),
        "without": pipeline.without("words"),
    }
    assert {way: [step.name for step in one.steps] for way, one in changed.items()} == {
        "before": ["words", "Shout", "louder", "length"],
        "after": ["words", "Shout", "louder", "length"],
        "replaced": ["letters", "length"],
        "without": ["length"],
    }


def test_a_step_is_found_by_name() -> None:
    step = Map(length)
    assert (Scatter(words) >> step)["length"] is step


@pytest.mark.parametrize(
    "use",
    [
        lambda pipeline: pipeline["size"],
        lambda pipeline: pipeline.before("size", Map(text)),
        lambda pipeline: pipeline.after("size", Map(text)),
        lambda pipeline: pipeline.replaced("size", Map(text)),
        lambda pipeline: pipeline.without("size"),
    ],
)
def test_an_unknown_name_is_refused_with_those_that_are_there(use: Callable[[Pipeline], object]) -> None:
    with pytest.raises(ConfigurationError, match="no step 'size'; its steps are words, length"):
        use(Scatter(words) >> Map(length))


# What does not fit.


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        (lambda: Map(length) >> Map(length, name="again"), "'again' takes str, but 'length' before it gives int"),
        (lambda: Map(text) >> Map(text), "two steps are called 'text'"),
        (lambda: (Scatter(words) >> Map(length) >> Map(text)).without("length"), "'text' takes int, but 'words'"),
        (lambda: Scatter(words) >> Aggregate(joined, over="word"), "over 'word', but the steps before it are: words"),
        (lambda: Pipeline((Aggregate(joined, over="words"),)), "over 'words', but the steps before it are: none"),
        (lambda: Aggregate(joined, over="joined") >> Map(length), "over 'joined', but the steps before it are: none"),
        (
            lambda: Map(text) >> Scatter(words, in_order_of="letters"),
            "'words' is over 'letters', but the steps before it are: text",
        ),
        (
            lambda: Map(length) >> Map(text) >> Aggregate(joined, over="length"),
            "'joined' takes str as what it is over, but 'length' gives int",
        ),
        (
            lambda: Scatter(words) >> Callback(passed) >> Aggregate(joined, over="words"),
            "'joined' cannot be over 'words': 'passed' in between mixes",
        ),
        (
            lambda: Scatter(words) >> Callback(passed) >> Scatter(letters, in_order_of="words"),
            "'letters' cannot be over 'words': 'passed' in between mixes",
        ),
        (
            lambda: (
                Scatter(words)
                >> Scatter(letters)
                >> Aggregate(joined, over="words")
                >> Aggregate(joined, over="letters", name="late")
            ),
            "'late' cannot be over 'letters': 'joined' in between mixes",
        ),
        (lambda: Broadcast(0, copied), "at least 1 item of one, not 0"),
        (lambda: Map(length, workers=0), "'length' needs `workers` to be at least 1, not 0"),
        (lambda: Scatter(words, workers=-1), "'words' needs `workers` to be at least 1, not -1"),
        (lambda: Map(length) >> Broadcast(1, copied), "'copied' takes str, but 'length' before it gives int"),
    ],
)
def test_steps_that_do_not_fit_are_refused(chain: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        chain()
    assert message in str(refused.value)


def test_a_run_without_workers_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match="'the pipeline' needs `workers` to be at least 1, not 0"):
        Pipeline().run([1], workers=0)


def test_a_narrower_type_fits_a_wider_one() -> None:
    async def either(item: Item[str | int]) -> bool: ...

    async def number(item: Item[int]) -> list[int]: ...

    async def anything(item: Item[Any]) -> object: ...

    assert Map(length) >> Map(either) >> Scatter(number) >> Map(anything)
    with pytest.raises(ConfigurationError, match="'length' takes str, but 'anything' before it gives object"):
        Map(anything) >> Map(length)


def _unannotated() -> list[Callable[[], Step]]:
    async def bare(item):  # type: ignore[no-untyped-def]
        return item

    async def half(item: Item[str]): ...  # type: ignore[no-untyped-def]

    def indexed(item, index: int) -> str: ...  # type: ignore[no-untyped-def, empty-body]

    return [
        lambda: Map(bare),
        lambda: Map(half),
        lambda: Map(lambda item: item),
        lambda: Map(partial(length)),
        lambda: Scatter(bare),
        lambda: Aggregate(bare, over="x"),
        lambda: Callback(bare),
        lambda: Broadcast(1, lambda item, index: (item, index)),
    ]


@pytest.mark.parametrize("declare", _unannotated())
def test_a_function_without_annotations_is_told_what_to_write(declare: Callable[[], Step]) -> None:
    with pytest.raises(ConfigurationError, match=r"must say in annotations .* `async def answer\(item: Item\[Question"):
        declare()


def test_a_function_of_something_else_than_items_is_refused() -> None:
    async def plain(item: str) -> str: ...

    def nothing_indexed(item, index: int) -> str: ...  # type: ignore[no-untyped-def]

    def some(item: Item[str], members: Sequence[str]) -> str: ...

    async def stream(items: AsyncIterator[Item[str]]) -> AsyncGenerator[str, None]: ...

    for declare, shown in (
        (lambda: Map(plain), "'plain' needs Item[…] in place of str"),
        (lambda: Broadcast(1, nothing_indexed), "'nothing_indexed' needs Item[…] in place of int"),
        (lambda: Aggregate(some, over="x"), "'some' needs Item[…] in place of str"),
        (lambda: Callback(stream), "'stream' needs Item[…] in place of str"),
    ):
        with pytest.raises(ConfigurationError) as refused:
            declare()
        assert shown in str(refused.value)


def test_a_function_that_is_async_where_it_must_not_be_or_the_other_way_round_is_refused() -> None:
    def plain(item: Item[str]) -> str: ...

    async def awaited(item: Item[str], index: int) -> str: ...

    async def whole(item: Item[str], members: Sequence[Item[str]]) -> str: ...

    def several(item: Item[str]) -> list[str]: ...

    for declare, message in (
        (lambda: Map(plain), "'plain' must be `async def`, not `def`"),
        (lambda: Scatter(several), "'several' must be `async def`, not `def`"),
        (lambda: Broadcast(1, awaited), "'awaited' must be `def`, not `async def`"),
        (lambda: Aggregate(whole, over="x"), "'whole' must be `def`, not `async def`"),
        (lambda: Scatter(length), "'length' must give several, for example `list[Question]`, not int"),
        (lambda: Map(length) >> text, "a pipeline is made of steps, such as Map(function), not of <function text"),
    ):
        with pytest.raises(ConfigurationError) as refused:
            declare()
        assert message in str(refused.value)


# Where an item came from.


async def test_an_item_knows_its_root_and_what_the_steps_before_it_made() -> None:
    async def described(item: Item[str]) -> str:
        return f"{item.root.value}/{item.ancestor('words')}/{item.ancestor('letters')}"

    assert await _run(Scatter(words) >> Scatter(letters) >> Map(described), "ab c") == [
        "ab c/ab/a",
        "ab c/ab/b",
        "ab c/c/c",
    ]


async def test_an_ancestor_that_is_none_is_a_lookup_error() -> None:
    (item,) = [item async for item in (Map(length) >> Map(text)).run(["abc"])]
    assert (item.ancestor("text"), item.ancestor("length"), item.step) == ("3", 3, "text")
    with pytest.raises(LookupError, match="no step 'words' made what this item came of"):
        item.ancestor("words")


async def test_an_aggregate_comes_of_the_item_that_it_is_over_and_not_of_its_members() -> None:
    pipeline = Scatter(words) >> Scatter(letters) >> Aggregate(joined, over="words")
    items = [item async for item in pipeline.run(["ab c"])]
    assert sorted((item.value, item.path, item.ancestor("words")) for item in items) == [
        ("ab=a,b", (0, 0), "ab"),
        ("c=c", (0, 1), "c"),
    ]
    with pytest.raises(LookupError):
        items[0].ancestor("letters")


def test_an_input_is_its_own_root() -> None:
    item = Item("a", (0,))
    assert item.root is item


def test_a_derived_item_keeps_path_and_parent_unless_told_otherwise() -> None:
    item = Item("a", (0, 1))
    made = derived(item, 3)
    assert (made.value, made.path, made.parent) == (3, (0, 1), item)
    assert derived(item, 3, path=(7,)).path == (7,)


async def test_the_turn_of_an_item_outside_a_run_is_now() -> None:
    await Item("a", (0,)).turn()


# Kinds of steps that others write.


async def test_a_callable_object_may_be_a_generator() -> None:
    assert await _run(Scatter(Echo()) >> Map(Shout()), "a") == ["A", "A"]


async def test_a_step_of_ones_own_emits_what_it_likes() -> None:
    class Twice(Step):
        async def run(self, item: Item[Any], emit: Emit) -> None:
            await emit(item.value, (*item.path, 0))
            await emit(item.value, (*item.path, 1))

    assert await _run(Twice("twice", str, str) >> Map(length), "a") == [1, 1]


async def test_a_step_that_does_nothing_says_so() -> None:
    with pytest.raises(NotImplementedError):
        await _run(Pipeline((Step("none", object, object),)), 1)


def test_an_item_can_be_referred_to_weakly_whatever_python_makes_of_generic_dataclasses() -> None:
    """3.12.3 makes no slot where `weakref_slot` asks for one: it has to come with a base."""
    item = Item("x", (0,))
    assert weakref.ref(item)() is item
    assert "__weakref__" not in Item.__slots__  # type: ignore[attr-defined] # of a dataclass with slots
