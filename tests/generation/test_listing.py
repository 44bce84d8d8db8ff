from collections.abc import Sequence

from nat_dpo_pipeline.generation.listing import Listing

Asked = tuple[int, tuple[str, ...], int]


class Model:
    """Gives one reply after the other, None when they are used up, and keeps what it was asked."""

    def __init__(self, *replies: Sequence[str] | None) -> None:
        self.asked: list[Asked] = []
        self._replies = iter(replies)

    async def __call__(self, missing: int, known: Sequence[str], attempt: int) -> list[str] | None:
        self.asked.append((missing, tuple(known), attempt))
        reply = next(self._replies, None)
        return None if reply is None else list(reply)


def _listing(model: Model, *, attempts: int = 4, near_duplicate: float = 0.8) -> Listing:
    return Listing(model, attempts=attempts, near_duplicate=near_duplicate)


async def _taken(listing: Listing, count: int) -> list[str]:
    return [text async for text in listing.more(count)]


async def test_a_full_reply_is_asked_for_once() -> None:
    model = Model(["oolong", "sencha"])
    assert await _taken(_listing(model), 2) == ["oolong", "sencha"]
    assert model.asked == [(2, (), 0)]


async def test_what_is_missing_is_asked_for_with_what_is_known() -> None:
    model = Model(["oolong", "sencha"], ["gyokuro"], ["matcha"])
    assert await _taken(_listing(model), 4) == ["oolong", "sencha", "gyokuro", "matcha"]
    assert model.asked == [
        (4, (), 0),
        (2, ("oolong", "sencha"), 1),
        (1, ("oolong", "sencha", "gyokuro"), 2),
    ]


async def test_items_are_given_before_more_is_asked_for() -> None:
    model = Model(["oolong", "sencha"], ["gyokuro"])
    given = _listing(model).more(3)
    assert [await anext(given), await anext(given)] == ["oolong", "sencha"]
    assert len(model.asked) == 1
    assert await anext(given) == "gyokuro"
    await given.aclose()


async def test_items_that_say_the_same_count_once() -> None:
    model = Model(["Green tea", "black tea", "the green tea"], ["Tea, black!", "white tea"])
    listing = _listing(model)
    assert await _taken(listing, 3) == ["Green tea", "black tea", "white tea"]
    assert listing.duplicates == 2
    assert model.asked[1] == (1, ("Green tea", "black tea"), 1)


async def test_how_much_alike_is_the_same_is_a_setting() -> None:
    pair = ["how is green tea made", "how is black tea made"]
    strict = _listing(Model(pair), attempts=1, near_duplicate=0.5)
    assert await _taken(strict, 2) == pair[:1]
    assert strict.duplicates == 1
    assert await _taken(_listing(Model(pair), attempts=1, near_duplicate=0.9), 2) == pair


async def test_the_list_is_short_when_the_attempts_are_used_up() -> None:
    model = Model(["a1"], [], ["a1"], ["a2"])
    listing = _listing(model, attempts=3)
    assert await _taken(listing, 2) == ["a1"]
    assert [attempt for _, _, attempt in model.asked] == [0, 1, 2]
    assert await _taken(listing, 1) == []
    assert len(model.asked) == 3


async def test_nothing_is_asked_without_attempts_or_for_nothing() -> None:
    model = Model(["a1"])
    assert await _taken(_listing(model, attempts=0), 1) == []
    assert await _taken(_listing(model), 0) == []
    assert model.asked == []


async def test_the_model_is_not_asked_again_when_that_is_of_no_use() -> None:
    model = Model(["a1"], None, ["a2"])
    listing = _listing(model)
    assert await _taken(listing, 2) == ["a1"]
    assert await _taken(listing, 1) == []
    assert len(model.asked) == 2


async def test_what_a_reply_held_too_much_is_used_later() -> None:
    model = Model(["a1", "a2", "a3"], ["a4", "a1"])
    listing = _listing(model)
    assert await _taken(listing, 1) == ["a1"]
    assert await _taken(listing, 1) == ["a2"]
    assert len(model.asked) == 1
    assert await _taken(listing, 2) == ["a3", "a4"]
    assert model.asked[1] == (1, ("a1", "a2", "a3"), 1)
    assert listing.duplicates == 1
