"""The judge finds every kind of fault in records that were tampered with, and none in good ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from copycat.demo import judge
from copycat.demo.judge import Client, Kill
from copycat.demo.records import Records, read
from copycat.demo.stamps import Stamp, StampFile
from copycat.demo.words import WordCount, words_of

TEXT = words_of("One ring to rule them all, one ring to find them; don't lose it.")
TAKEN = (20, 9)


def records_of(number: int) -> list[list[Any]]:
    """What one of two clients wrote down: every word of its share, some increments, its end."""
    share = TEXT[number::2]
    lines: list[list[Any]] = []
    for position in range(TAKEN[number]):
        lines.append(["word", position / 10, 1.5, share[position % len(share)]])
    lines += [["increment", 3.0 + i, 2.5, 1 + 2 * i + number] for i in range(5)]
    return [*lines, ["end", 9.0, TAKEN[number], 5]]


def clients() -> list[Client]:
    """Two clients with good records."""
    return [Client.of(f"c{number}", records_of(number)) for number in range(2)]


def found() -> Counter[str]:
    """What a faithful cluster has."""
    return sum((client.words for client in clients()), Counter[str]())


def test_good_records_pass() -> None:
    """A cluster that has exactly what the text says, and a counter that fits, pass."""
    words = judge.check_words(clients(), TEXT, found())
    assert words.ok and words.figures["lost"] == words.figures["twice"] == 0
    assert words.figures["expected"] == words.figures["found"] == sum(TAKEN)
    assert judge.check_increments(clients(), 10).ok


@pytest.mark.parametrize("change", [-1, 1])
def test_one_word_too_few_or_too_many_is_found(change: int) -> None:
    """A single lost or doubled word fails the check, whichever word it is."""
    for word in found():
        counts = found()
        counts[word] += change
        check = judge.check_words(clients(), TEXT, counts)
        assert not check.ok
        assert check.figures["lost" if change < 0 else "twice"] == 1


def test_a_word_that_is_not_in_the_text_is_found() -> None:
    """The expectation comes from the text, not from what clients say they sent."""
    assert not judge.check_words(clients(), TEXT, found() + Counter(["sauron"])).ok


def test_records_without_an_end_fail() -> None:
    """A client that died cannot prove anything."""
    cut = [Client.of("c0", records_of(0)[:-1]), Client.of("c1", records_of(1))]
    assert not judge.check_words(cut, TEXT, found()).ok


def test_a_word_in_doubt_may_be_there_or_not_but_not_twice() -> None:
    """An unknown outcome widens what is accepted by one, for that word alone."""
    lines = records_of(0)
    word = lines[4][3]
    lines[4] = ["failed", 0.4, "word", word, "unknown", "no answer"]
    doubting = [Client.of("c0", lines), Client.of("c1", records_of(1))]
    for change, ok in ((0, True), (-1, True), (-2, False), (1, False)):
        counts = found()
        counts[word] += change
        assert judge.check_words(doubting, TEXT, counts).ok is ok
    lines[4][4] = "no"
    refused = [Client.of("c0", lines), Client.of("c1", records_of(1))]
    assert not judge.check_words(refused, TEXT, found()).ok
    assert judge.check_words(refused, TEXT, found() - Counter([word])).ok


def test_increments_lost_or_doubled_are_found() -> None:
    """The counter is neither below the acknowledgements nor above the attempts."""
    assert not judge.check_increments(clients(), 9).ok
    assert not judge.check_increments(clients(), 11).ok


def test_a_value_given_out_twice_is_found() -> None:
    """Two increments never return the same value, even if the sum is right."""
    lines = records_of(0)
    lines[-2][3] = lines[-3][3]
    check = judge.check_increments([Client.of("c0", lines), Client.of("c1", records_of(1))], 10)
    assert not check.ok and check.figures["values_twice"] == 1


def test_an_increment_in_doubt_may_count_or_not() -> None:
    """An unknown outcome is accepted both ways; a missing attempt is not."""
    lines = records_of(0)
    lines[-2] = ["failed", 7.0, "increment", "", "unknown", "no answer"]
    doubting = [Client.of("c0", lines), Client.of("c1", records_of(1))]
    assert [judge.check_increments(doubting, n).ok for n in (8, 9, 10, 11)] == [
        False, False, True, False
    ]  # fmt: skip
    del lines[-2]
    lost = [Client.of("c0", lines), Client.of("c1", records_of(1))]
    assert not judge.check_increments(lost, 10).ok


def stamps(*tokens: int) -> list[Stamp]:
    """Whole turns under these tokens, one after the other."""
    return [Stamp(t, f"c{t % 2}", what, 0.0) for t in tokens for what in ("begin", "end")]


def test_turns_one_after_the_other_pass() -> None:
    """Begin and end alternate, tokens rise; no turns at all prove nothing."""
    assert judge.check_lock(clients(), stamps(3, 4, 9)).ok
    assert not judge.check_lock(clients(), []).ok


@pytest.mark.parametrize(
    "tamper",
    [
        lambda s: [s[0], s[2], s[1], s[3]],  # the second begins before the first ends
        lambda s: [s[0], s[2], s[3], s[1]],  # and ends before it, too
        lambda s: [s[0], s[2], s[3]],  # an end is missing
        lambda s: [s[0], s[1], s[3]],  # a begin is missing
        lambda s: [s[2], s[3], s[0], s[1]],  # tokens fall
        lambda s: [*s, s[2], s[3]],  # a token comes again
    ],
)
def test_overlaps_and_falling_tokens_are_found(
    tamper: Callable[[list[Stamp]], list[Stamp]],
) -> None:
    """Any other order of stamps fails."""
    assert not judge.check_lock(clients(), tamper(stamps(3, 4))).ok


def test_two_leaders_at_a_time_are_found() -> None:
    """Reigns of several clients must not overlap, and their tokens rise."""

    def check(*events: tuple[int, float, str, int]) -> bool:
        both = clients()
        for number, when, event, token in events:
            both[number].reigns.append((when, event, token))
        return judge.check_leaders(both).ok

    good = ((0, 1.0, "begin", 5), (0, 2.0, "end", 5), (1, 2.1, "begin", 6))
    assert check(*good)
    assert not check()
    assert not check((0, 1.0, "begin", 5), (1, 1.5, "begin", 6), (0, 2.0, "end", 5))
    assert not check((0, 1.0, "begin", 6), (0, 2.0, "end", 6), (1, 2.1, "begin", 5))


def test_members_must_all_agree() -> None:
    """One different or missing digest fails."""
    assert judge.check_replicas(7, {"n1": b"x", "n2": b"x"}).ok
    assert not judge.check_replicas(7, {"n1": b"x", "n2": b"y"}).ok
    assert not judge.check_replicas(7, {"n1": b"x", "n2": None}).ok
    assert not judge.check_replicas(7, {"n1": None, "n2": None}).ok


def test_the_time_without_a_leader_is_the_clients_time() -> None:
    """The longest silence that touches the time from the kill to the election counts."""
    times = [1.0, 1.1, 1.15, 1.4, 1.45, 3.0, 3.1]
    assert judge.longest_gap(times, 1.12, 1.3) == pytest.approx(0.25)
    assert judge.longest_gap(times, 1.16, 1.42) == pytest.approx(0.25)
    assert judge.longest_gap(times, 1.46, 1.5) == pytest.approx(1.55)
    assert judge.longest_gap(times, 3.05, 3.2) is None


def test_a_leader_that_was_not_replaced_fails() -> None:
    """Each kill needs a new leader, acknowledgements again, and the killed one back."""
    both = clients()
    good = Kill("n1", 1, 0.5, "n2", 2, 0.7, 1.0)
    assert judge.check_failover(both, [good], 1).ok
    assert not judge.check_failover(both, [good], 2).ok
    assert not judge.check_failover(both, [Kill("n1", 1, 0.5)], 1).ok
    assert not judge.check_failover(both, [Kill("n1", 1, 0.5, "n2", 2, 0.7)], 1).ok
    assert not judge.check_failover(both, [Kill("n1", 1, 0.5, "n2", 2, 99.0, 1.0)], 1).ok


def test_speed_is_over_the_whole_run() -> None:
    """Writes per second from the first to the last acknowledgement; nearest-rank percentiles."""
    speed = judge.speed(clients())
    assert speed["writes"] == sum(TAKEN) + 10
    assert speed["seconds"] == pytest.approx(7.0)
    assert (speed["p50_ms"], speed["p99_ms"]) == (1.5, 2.5)
    assert judge.speed([])["writes_per_s"] == 0.0


def test_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    """What a client wrote is what the judge reads, odd words included."""
    path = tmp_path / "r.jsonl"
    with Records(path) as records:
        records.done("word", 1.25, 0.0015, '"\\u00e9t\\u00e9"')
        records.note("lock", 2.0, "end", 7)
        assert records.acknowledged == 1
    assert list(read(path)) == [["word", 1.25, 1.5, "été"], ["lock", 2.0, "end", 7]]


def test_the_fence_refuses_a_lower_token(tmp_path: Path) -> None:
    """Once a higher token was seen, a late holder cannot write any more; equal tokens can."""
    file = StampFile(tmp_path / "stamps")
    assert file.read() == []
    assert file.write(5, "a", "begin")
    assert file.write(9, "b", "begin")
    assert not file.write(5, "a", "end")
    assert file.write(9, "b", "end")
    assert [(s.token, s.who, s.what) for s in file.read()] == [
        (5, "a", "begin"), (9, "b", "begin"), (9, "b", "end")
    ]  # fmt: skip


def test_words_are_cut_and_counted_alike() -> None:
    """Case and punctuation do not matter, apostrophes and hyphens inside a word do not cut it."""
    assert words_of("Don't STOP: well-known, 3 times. _x_ --") == [
        "don't", "stop", "well-known", "3", "times", "x"
    ]  # fmt: skip
    machine = WordCount()
    assert [WordCount.add.function(machine, word) for word in ("a", "b", "a")] == [1, 1, 2]
    assert WordCount.table.function(machine) == {"a": 2, "b": 1}
