"""The linearizability check against drawn stories, atomic objects and brute force."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from copycat.errors import MisuseError
from copycat.testing.history import History, Operation, Outcome
from copycat.testing.linearizable import check
from copycat.testing.models import Lock, Long, MapKey, Model

from .stories import history

MODELS: dict[str, Callable[[], Model[Any]]] = {"map": MapKey, "long": Long, "lock": Lock}

# -- stories ---------------------------------------------------------------------------------------

GOOD = {
    "a read sees what was written before": """map
        a: [put 1 -> None]
        b:                   [get -> 1]
    """,
    "reads that overlap a write may see either side of it": """map
        a: [put 1 -> None]  [put 2                  -> 1]
        b:                   [get -> 1]
        c:                         [get -> 2]
    """,
    "an answer may come long after its effect": """map
        a: [put 1                            -> None]
        b:     [get -> 1] [put 2 -> 1]
        c:                              [get -> 2]
    """,
    "an unknown write takes effect much later": """map
        a: [put 1 -> None]  [put 2 ?]
        b:                              [get -> 1] [put 3 -> 1] [get -> 3] [get -> 2]
    """,
    "an unknown write never takes effect": """map
        a: [put 1 -> None]  [put 2 ?]
        b:                              [get -> 1] [put 3 -> 1] [get -> 3]
    """,
    "an unknown write shows in the answer to the next one": """map
        a: [put 1 -> None]  [put 2 ?]
        b:                              [put 3 -> 2]
    """,
    "unknown writes take effect in the other order": """map
        a: [put 1 ?]
        b:           [put 2 ?]
        c:                      [get -> 2] [get -> 1]
    """,
    "an unknown removal, and a put_if_absent that shows it": """map
        a: [put 1 -> None]  [remove ?]
        b:                              [put_if_absent 2 -> 1] [put_if_absent 3 -> None]
    """,
    "a failed write leaves no trace": """map
        a: [put 1 -> None]  [put 2 !]
        b:                              [get -> 1]
    """,
    "an unknown read means nothing": """map
        a: [get ?]
        b:          [put 1 -> None] [get -> 1]
    """,
    "one of two compare-and-sets wins": """map
        a: [put 1 -> None]  [replace_if 1 2 -> True]
        b:                  [replace_if 1 3 -> False]
        c:                                             [get -> 2]
    """,
    "both win if somebody put the value back between them": """map
        a: [put 1 -> None]  [replace_if 1 2    -> True]
        b:                  [replace_if 1 3    -> True]
        c:                  [put 1             -> 2]
    """,
    "every operation of a map's key": """map
        a: [get -> None] [contains -> False] [replace 1 -> None] [remove -> None] [put 1 -> None]
        b:                                                                                         \
           [put_if_absent 2 -> 1] [replace 3 -> 1] [replace_if 4 5 -> False] [contains -> True]    \
           [remove_if 4 -> False] [get 9 -> 3] [remove_if 3 -> True] [get 9 -> 9] [pop 8 -> 8]
    """,
    "a key that holds None is there": """map
        a: [put None -> None] [contains -> True] [remove_if None -> True] [contains -> False]
    """,
    "an answer of False is not always a refusal": """map
        a: [put False -> None] [put 1             -> False]
        b:                        [get -> False]
        c:                                 [replace_if False 2 -> False]
    """,
    "two increments at once get two values": """long
        a: [increment -> 2]
        b: [increment -> 1]
        c:                   [get -> 2]
    """,
    "a counter skips what an unknown increment took": """long
        a: [increment 5 ?]
        b:                  [increment -> 1] [increment -> 7] [decrement 2 -> 5]
    """,
    "every operation of a number": """long
        a: [get -> 0] [set 4] [get_and_set 5 -> 4] [compare_and_set 5 6 -> True]                   \
           [compare_and_set 5 7 -> False] [get_and_add 2 -> 6] [decrement -> 7] [get -> 7]
    """,
    "a lock goes from hand to hand": """lock
        a: [acquire -> 3]   [release]
        b:        [acquire                   -> 5]   [release]
        c:     [try_acquire]                                    [locked -> False]
    """,
    "a lock that went with its session": """lock
        a: [acquire -> 3]   [release ?]
        b:                              [locked -> True] [acquire -> 5]
    """,
    "a lock that was perhaps granted is in the way": """lock
        a: [acquire ?]
        a:              [release ?]
        b:                          [try_acquire] [locked -> True] [acquire -> 5]
    """,
}

BAD = {
    "a stale read": """map
        a: [put 1 -> None]  [put 2 -> 1]
        b:                                [get -> 1]
    """,
    "a read goes back": """map
        a: [put 1 -> None]  [put 2                      -> 1]
        b:                     [get -> 2]
        c:                                  [get -> 1]
    """,
    "a lost write": """map
        a: [put 1 -> None]
        b:                  [get -> None]
    """,
    "a lost write under an acknowledged one": """map
        a: [put 1 -> None]  [put 2 -> 1]
        b:                                [put 3 -> 1]
    """,
    "a write is seen before it was asked for": """map
        a:            [put 1 -> None]
        b: [get -> 1]
    """,
    "a write is applied twice": """map
        a: [put 1 -> None]
        b:                  [put 2 -> 1] [get -> 2] [get -> 1]
    """,
    "an unknown write is applied twice": """map
        a: [put 1 ?]
        b:           [get -> 1] [put 2 -> 1] [get -> 2] [get -> 1]
    """,
    "an unknown write that was seen disappears": """map
        a: [put 1 -> None]  [put 2 ?]
        b:                             [get -> 2] [get -> 1]
    """,
    "a failed write takes effect": """map
        a: [put 1 -> None]  [put 2 !]
        b:                             [get -> 2]
    """,
    "a value from nowhere": """map
        a: [put 1 -> None]
        b:                  [get -> 7]
    """,
    "a compare-and-set succeeds twice": """map
        a: [put 1 -> None]  [replace_if 1 2 -> True]
        b:                  [replace_if 1 3 -> True]
    """,
    "two put_if_absent at once both find nothing": """map
        a: [put_if_absent 1 -> None]
        b: [put_if_absent 2 -> None]
    """,
    "two removals of one value": """map
        a: [put 1 -> None]  [remove -> 1]
        b:                  [remove -> 1]
    """,
    "two increments get one value": """long
        a: [increment -> 1]
        b: [increment -> 1]
    """,
    "an increment is applied twice": """long
        a: [increment -> 1]
        b:                   [increment -> 3]
    """,
    "two unknown increments cannot make three": """long
        a: [increment ?] [increment ?]
        b:                              [get -> 3]
    """,
    "two hold one lock": """lock
        a: [acquire -> 3]
        b:                 [acquire -> 5]
    """,
    "a fencing token falls": """lock
        a: [acquire -> 5] [release]
        b:                          [acquire -> 3]
    """,
    "a fencing token is given out twice": """lock
        a: [acquire -> 3] [release]
        b:                          [acquire -> 3]
    """,
    "a lock is refused although nobody has it": """lock
        a: [acquire -> 5] [release]
        b:                          [try_acquire]
    """,
    "a lock is given back by somebody else": """lock
        a: [acquire -> 5]
        b:                 [release]
    """,
}


def judged(story: str) -> str:
    """The finding about a story."""
    name, _, drawing = story.partition("\n")
    return check(history(drawing), MODELS[name]()).finding


@pytest.mark.parametrize("story", GOOD.values(), ids=GOOD)
def test_good_stories(story: str) -> None:
    """What atomic objects can show to clients is accepted."""
    assert judged(story) == "good"


@pytest.mark.parametrize("story", BAD.values(), ids=BAD)
def test_bad_stories(story: str) -> None:
    """What no atomic object can show is rejected."""
    assert judged(story) == "bad"


def test_a_violation_is_explained() -> None:
    """The text names the key, the first answer that fits no order, and nothing that came later."""
    operations = history("""
        a: [put 1 -> None]  [put 2 -> 1]               [put 3 -> 2]
        b:                                [get -> 1]
        c:                                                           [get -> 9]
    """)
    verdict = check(operations, MapKey())
    assert verdict.finding == "bad"
    assert verdict.text.splitlines() == [
        "key 'k' is not linearizable",
        "of 5 answers, the first 3 fit no order; the last of them:",
        "    b [42.000..51.000] get('k') -> 1",
        "the longest order found, with the state after each:",
        "    a [11.000..25.000] put('k', 1) -> None  => (1,)",
        "    a [28.000..39.000] put('k', 2) -> 1  => (2,)",
        "after it, these fit nowhere:",
        "    b [42.000..51.000] get('k') -> 1",
    ]


def test_an_explanation_stays_short() -> None:
    """A long history with one bad answer is explained in a few lines."""
    operations = atomic(random.Random(3), MapKey(), [("get",), ("put", 1)], clients=8, count=600)
    victim = next(each for each in operations[300:] if each.outcome is Outcome.OK)
    victim.result = "nobody wrote this"
    verdict = check(operations, MapKey())
    assert verdict.finding == "bad" and str(victim) in verdict.text
    assert len(verdict.text.splitlines()) < 40


def test_keys_are_judged_apart() -> None:
    """A bad key is found among good ones, and named."""
    good = history("a: [put 1 -> None]", key="good")
    bad = history("a: [put 1 -> 2]", key="bad")
    assert check(good, MapKey()).finding == "good"
    verdict = check(good + bad, MapKey())
    assert verdict.finding == "bad" and "'bad'" in verdict.text and "'good'" not in verdict.text


def test_giving_up_is_not_good() -> None:
    """Beyond its limit the check is undecided, for good histories and for bad ones."""
    for story in (GOOD, BAD):
        for text in story.values():
            name, _, drawing = text.partition("\n")
            verdict = check(history(drawing), MODELS[name](), limit=1)
            assert verdict.finding in ("undecided", "bad" if story is BAD else "good")
    operations = atomic(random.Random(1), MapKey(), [("get",), ("put", 1)], clients=4, count=50)
    verdict = check(operations, MapKey(), limit=10)
    assert verdict.finding == "undecided" and "'k'" in verdict.text


def test_a_model_refuses_what_it_does_not_know() -> None:
    """A misspelt operation is an error of the workload, not a finding."""
    for model in (MapKey(), Long(), Lock()):
        with pytest.raises(MisuseError, match="putt"):
            check(history("a: [putt 1 -> None]"), model)


# -- properties ------------------------------------------------------------------------------------

Call = tuple[Any, ...]
CALLS: dict[str, list[Call]] = {
    "map": [
        ("get",), ("put", 1), ("put", 2), ("put_if_absent", 1), ("replace", 2), ("remove",),
        ("replace_if", 1, 2), ("remove_if", 2),
    ],
    "long": [("get",), ("increment",), ("increment", 2), ("set", 1), ("compare_and_set", 1, 3)],
    "lock": [("acquire",), ("release",), ("try_acquire",), ("locked",)],
}  # fmt: skip


def perform(model: Model[Any], state: Any, operation: Operation) -> Any:
    """Find the answer that the model accepts and note it; the state after it, or None."""
    answers: Sequence[Hashable]
    if isinstance(model, Lock):
        answers = (None, True, False, state[1] + 1, state[1] + 2)
    else:
        answer, _ = model.apply(state, operation.name, operation.arguments)
        answers = (answer,)
    for answer in answers:
        if answer is None and operation.name == "acquire":
            continue
        attempt = replace(operation, outcome=Outcome.OK, result=answer)
        accepted, after = model.step(state, attempt)
        if accepted:
            operation.result = answer
            return after
    return None


def atomic(
    chance: random.Random,
    model: Model[Any],
    calls: Sequence[Call],
    *,
    clients: int,
    count: int,
    lost: float = 0.05,
) -> list[Operation]:
    """A history of clients that share an object which does one thing at a time.

    Each operation takes effect at some moment of its run; of those whose answer is lost, some take
    effect later or never, while the client goes on.
    """
    recorded = History()
    state = model.initial()
    running: dict[str, Operation] = {}
    done: set[int] = set()
    late: list[Operation] = []
    names = [chr(ord("a") + number) for number in range(clients)]
    while True:
        name = chance.choice(names)
        operation = running.get(name)
        step = chance.random()
        if late and chance.random() < 0.1:
            late_one = late.pop(chance.randrange(len(late)))
            after = perform(model, state, late_one)
            state, late_one.result = (state if after is None else after), None
        if operation is None:
            if len(recorded.operations) < count:
                call, *arguments = chance.choice(calls)
                running[name] = recorded.invoke(name, call, "k", *arguments)
            elif not running:
                return recorded.operations
        elif id(operation) not in done:
            if step < lost:
                recorded.unknown(running.pop(name))
                late.append(operation)
            elif step < 0.6:
                after = perform(model, state, operation)
                if after is None:
                    recorded.failed(running.pop(name))
                else:
                    state = after
                    done.add(id(operation))
        elif step < lost:
            recorded.unknown(running.pop(name))
        elif step < 0.6:
            recorded.ok(running.pop(name), operation.result)


@pytest.mark.parametrize("name", MODELS)
def test_what_really_happened_is_accepted(name: str) -> None:
    """Histories of an atomic object, with delays and lost answers, are good for 200 seeds."""
    for seed in range(200):
        chance = random.Random(seed)
        count = chance.choice((5, 20, 80))
        clients = chance.randint(1, 8)
        model = MODELS[name]()
        operations = atomic(chance, model, CALLS[name], clients=clients, count=count)
        verdict = check(operations, model)
        assert verdict.finding == "good", f"seed {seed}: {verdict}"


def explained(operations: Sequence[Operation], model: Model[Any]) -> bool:
    """The definition, tried out: whether any order of any subset with all answers fits."""
    answered = [each for each in operations if each.outcome is Outcome.OK]
    unknown = [each for each in operations if each.outcome is Outcome.UNKNOWN]
    for size in range(len(unknown) + 1):
        for some in itertools.combinations(unknown, size):
            if any(fits(order, model) for order in itertools.permutations([*answered, *some])):
                return True
    return False


def fits(order: Sequence[Operation], model: Model[Any]) -> bool:
    """Whether an order keeps to real time, and the model accepts all of it."""
    state = model.initial()
    for place, each in enumerate(order):
        if any(
            later.outcome is Outcome.OK and later.end is not None and later.end < each.begin
            for later in order[place + 1 :]
        ):
            return False
        accepted, state = model.step(state, each)
        if not accepted:
            return False
    return True


def corrupted(chance: random.Random, operations: list[Operation], model: Model[Any]) -> None:
    """Give one answer another value."""
    answered = [each for each in operations if each.outcome is Outcome.OK]
    if not answered:
        return
    victim = chance.choice(answered)
    values: list[Hashable] = [None, True, False, 1, 2, 3]
    if isinstance(model, Lock) and victim.name == "acquire":
        values = [1, 2, 3, 4]
    victim.result = chance.choice(values)


@pytest.mark.parametrize("name", MODELS)
def test_it_agrees_with_brute_force(name: str) -> None:
    """On 2,000 tiny histories, some of them corrupted, both find the same; many are good or bad."""
    chance = random.Random(4)
    findings: Counter[str] = Counter()
    for nth in range(2000):
        model = MODELS[name]()
        count, lost = chance.randint(2, 6), chance.choice((0.0, 0.2, 0.4))
        operations = atomic(chance, model, CALLS[name], clients=3, count=count, lost=lost)
        if chance.random() < 0.7:
            corrupted(chance, operations, model)
        verdict = check(operations, model)
        expected = "good" if explained(operations, model) else "bad"
        story = "\n".join(map(str, operations))
        assert verdict.finding == expected, f"history {nth}:\n{story}\n{verdict}"
        findings[expected] += 1
    assert min(findings["good"], findings["bad"]) > 300, findings


@pytest.mark.parametrize("name", MODELS)
def test_the_shortest_bad_prefix_is_found(name: str) -> None:
    """A bad history's explanation names the very answer from which on no order fits."""
    chance = random.Random(5)
    found = 0
    while found < 100:
        model = MODELS[name]()
        operations = atomic(chance, model, CALLS[name], clients=3, count=5, lost=0.1)
        corrupted(chance, operations, model)
        verdict = check(operations, model)
        if verdict.finding == "good":
            continue
        found += 1
        ends = sorted(
            (each for each in operations if each.outcome is Outcome.OK),
            key=lambda each: each.end or 0,
        )
        first = next(
            each for each in ends if not explained(beginning(operations, each.end or 0), model)
        )
        number = ends.index(first) + 1
        assert f"of {len(ends)} answers, the first {number} fit no order" in verdict.text
        assert verdict.text.splitlines()[2].strip() == str(first)


def beginning(operations: Sequence[Operation], place: int) -> list[Operation]:
    """What was known at a place of the history."""
    return [
        replace(each, outcome=Outcome.UNKNOWN)
        if each.outcome is Outcome.OK and (each.end or 0) > place
        else each
        for each in operations
        if each.begin <= place
    ]
