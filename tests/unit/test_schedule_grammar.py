"""What a cron expression may say, what is refused, and what the refusal tells."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cron_observer import schedule
from cron_observer.errors import ScheduleError
from cron_observer.model import ScheduleSpec
from cron_observer.schedule.grammar import FIELDS, Cron, parse

SEED = "default/nightly-export"


def values(mask: int) -> list[int]:
    return [bit for bit in range(64) if mask >> bit & 1]


def read(text: str, seed: str | None = SEED) -> Cron:
    return parse(text, seed)


def attempt(text: str) -> Cron | ScheduleError:
    try:
        return parse(text, None)
    except ScheduleError as error:
        return error


def refusal(text: str, seed: str | None = SEED) -> ScheduleError:
    with pytest.raises(ScheduleError) as refused:
        schedule.compile(ScheduleSpec(cron=(text,), seed=seed))
    return refused.value


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("5 * * * *", [5]),
        ("5-5 * * * *", [5]),
        ("5-5/2 * * * *", [5]),
        ("50/5 * * * *", [50, 55]),
        ("59/5 * * * *", [59]),
        ("10-20/5 * * * *", [10, 15, 20]),
        ("*/20 * * * *", [0, 20, 40]),
        ("*/60 * * * *", [0]),
        ("1,3-5,10-20/10 * * * *", [1, 3, 4, 5, 10, 20]),
        ("00,07 * * * *", [0, 7]),
        ("\t 3  *\t* * * \n", [3]),
    ],
)
def test_minutes_are_read(text: str, minutes: list[int]) -> None:
    """Numbers, lists, ranges and steps mean what they mean in cron."""
    assert values(read(text).minutes) == minutes


@pytest.mark.parametrize(
    ("text", "weekdays"),
    [
        ("* * * * 0", [0]),
        ("* * * * 7", [0]),
        ("* * * * 5-7", [0, 5, 6]),
        ("* * * * 0-7", [0, 1, 2, 3, 4, 5, 6]),
        ("* * * * 1-7/2", [0, 1, 3, 5]),
        ("* * * * 1/2", [1, 3, 5]),
        ("* * * * */2", [0, 2, 4, 6]),
        ("* * * * mon-Fri", [1, 2, 3, 4, 5]),
        ("* * * * SAT,sun", [0, 6]),
    ],
)
def test_weekdays_are_read(text: str, weekdays: list[int]) -> None:
    """Sunday is 0 and 7, and names may be written in any case."""
    assert values(read(text).weekdays) == weekdays


def test_last_and_nth_days_are_read() -> None:
    """`L` is the last day of the month, `x#n` the n-th weekday x, `Lx` the last one."""
    cron = read("0 0 L,15 * 5#3,L7,MON#1")
    assert cron.last_day
    assert values(cron.days) == [15]
    assert cron.nth == ((0, -1), (1, 1), (5, 3))
    assert values(cron.weekdays) == []


@pytest.mark.parametrize(
    ("text", "interval", "both"),
    [
        ("* 3 * * *", True, True),
        ("*/5 3 * * *", True, True),
        ("5 */2 * * *", True, True),
        ("*/20,5 3 * * *", True, True),
        ("0-59 3 1 * 1", False, False),
        ("0 0-23/2 1 * */2", False, True),
        ("0 0 */2 * 1", False, True),
        ("0 0 1-31 * 1", False, False),
    ],
)
def test_stars_decide_the_class_and_the_day_rule(text: str, interval: bool, both: bool) -> None:
    """Only a field that begins with a star counts as one, whatever values it has."""
    cron = read(text)
    assert (cron.interval_like, cron.both_days) == (interval, both)


@pytest.mark.parametrize(
    ("macro", "text"),
    [
        ("@yearly", "0 0 1 1 *"),
        ("@Annually", "0 0 1 1 *"),
        ("@MONTHLY", "0 0 1 * *"),
        ("@weekly", "0 0 * * 0"),
        (" @daily ", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@hourly", "0 * * * *"),
    ],
)
def test_macros_stand_for_expressions(macro: str, text: str) -> None:
    """Macros are the same as what they stand for, whatever the task is called."""
    assert read(macro) == read(text)


@pytest.mark.parametrize(
    ("text", "rule", "said", "hint"),
    [
        ("", "CO3002", "empty", "five fields"),
        ("1," * 200 + "1 * * * *", "CO3002", "256", ""),
        ("\u0660 * * * *", "CO3002", "\\u0660", "ASCII"),
        ("\uff11 * * * *", "CO3002", "\\uff11", "ASCII"),
        ("0 0 1\n* *", "CO3002", "\\n", "ASCII"),
        ("0\u00a00 * * *", "CO3002", "\\xa0", "ASCII"),
        ("* * * *", "CO3003", "4 fields", "minute, hour"),
        ("* * * * * *", "CO3003", "6 fields", "every: 10s"),
        ("0 0 12 1 1 ? 2026", "CO3003", "7 fields", "years"),
        ("60 * * * *", "CO3004", "0 to 59", ""),
        ("* 24 * * *", "CO3004", "0 to 23", ""),
        ("* * 0 * *", "CO3004", "1 to 31", ""),
        ("* * * 13 *", "CO3004", "1 to 12", ""),
        ("* * * * 8", "CO3004", "0 to 7", "Sunday is 0 or 7"),
        ("+5 * * * *", "CO3004", "+5", ""),
        ("1e1 * * * *", "CO3004", "1E1", ""),
        ("0x5 * * * *", "CO3004", "0X5", ""),
        ("0_5 * * * *", "CO3004", "0_5", ""),
        ("1,,2 * * * *", "CO3004", "empty entry", "comma"),
        ("* * * jnu *", "CO3004", "JNU", "did you mean JUN?"),
        ("* * * january *", "CO3004", "JANUARY", "did you mean JAN?"),
        ("* * * * 5#6", "CO3004", "1 to 5", ""),
        ("* 22-4 * * *", "CO3005", "backwards", "write 22-23,0-4"),
        ("5-1 * * * *", "CO3005", "backwards", "write 5-59,0-1"),
        ("* * * * fri-mon", "CO3005", "backwards", "write 5-6,0-1"),
        ("* * * * fri-sun", "CO3005", "backwards", "write 5-7"),
        ("* 22-4/2 * * *", "CO3005", "backwards", "write the values out"),
        ("*/0 * * * *", "CO3006", "the step is 0", "1 or more"),
        ("*/90 * * * *", "CO3006", "larger than the field", "every"),
        ("* * 1-31/40 * *", "CO3006", "larger than the field", "every"),
        ("*/99999999999 * * * *", "CO3006", "larger than the field", "every"),
        ("*/-5 * * * *", "CO3006", "number", ""),
        ("* * L/2 * *", "CO3006", "no step", ""),
        ("* * * * 1#2/2", "CO3006", "no step", ""),
        ("R * * * *", "CO3007", "R is not supported", "write H"),
        ("R(0-5) * * * *", "CO3007", "R is not supported", "write H"),
        ("0 0 ? * 1", "CO3007", "?", "write *"),
        ("0 0 15W * *", "CO3007", "W is not supported", "weekdays"),
        ("0 0 LW * *", "CO3007", "W is not supported", "weekdays"),
        ("0 0 L-3 * *", "CO3007", "L-3", "L alone"),
        ("0 0 * * 5L", "CO3007", "5L", "write L5"),
        ("0 0 * * L", "CO3007", "'L'", "L5"),
        ("L 0 * * *", "CO3007", "'L'", "day fields"),
        ("0~9 * * * *", "CO3007", "~", "H(a-b)"),
        ("@reboot", "CO3008", "@reboot", "host"),
        ("@every 5m", "CO3008", "@every", "every: 5m"),
        ("@dialy", "CO3008", "@dialy", "did you mean @daily?"),
        ("@daily *", "CO3008", "@daily *", "@daily"),
        ("0 0 30 2 *", "CO3009", "never fires", "day of month"),
        ("0 0 31 4,6,9,11 *", "CO3009", "never fires", "day of month"),
        ("0 0 */31 * 1#2", "CO3009", "never fires", "day of month"),
        ("H(9-1) * * * *", "CO3005", "backwards", "swap"),
        ("H(0-60) * * * *", "CO3004", "0 to 59", ""),
        ("H/0 * * * *", "CO3006", "the step is 0", ""),
        ("H(1 * * * *", "CO3004", "H(1", ""),
    ],
)
def test_refusals_say_what_and_how_to_mend_it(text: str, rule: str, said: str, hint: str) -> None:
    """What engines disagree about is refused, with the field, the entry and a way out."""
    error = refusal(text)
    assert (error.rule, error.pointer) == (rule, "/cron")
    assert said in error.message
    assert hint in (error.hint or "")
    assert error.rule in schedule.CODES


@pytest.mark.parametrize("text", ["0 0 29 2 *", "0 0 31 * *", "0 0 29 2 1#5", "0 0 30 2 1"])
def test_rare_dates_are_not_refused(text: str) -> None:
    """A date that comes once in years is a schedule."""
    schedule.check(ScheduleSpec(cron=(text,)))


def test_the_wrong_one_of_several_is_pointed_at() -> None:
    """In a list of expressions the pointer names the place."""
    with pytest.raises(ScheduleError) as refused:
        schedule.check(ScheduleSpec(cron=("0 0 * * *", "0 24 * * *")))
    assert refused.value.pointer == "/cron/1"


def test_h_needs_a_name_only_when_it_fires() -> None:
    """`check` takes H as it is; `compile` refuses it without a seed."""
    schedule.check(ScheduleSpec(cron=("H H * * *",)))
    error = refusal("H H * * *", seed=None)
    assert error.rule == "CO3010"
    assert "seed" in (error.hint or "")


@settings(max_examples=200, deadline=None)
@given(st.text(min_size=1, max_size=40), st.integers(1, 31))
def test_h_stays_in_its_range_and_never_changes(name: str, step: int) -> None:
    """H spreads inside its field or range, day of month only to 28, and depends on nothing but the seed."""
    cron = parse(f"H H(2-5) H * {step % 7}", name)
    assert len(values(cron.minutes)) == 1
    assert set(values(cron.hours)) < {2, 3, 4, 5}
    assert set(values(cron.days)) <= set(range(1, 29))
    assert parse(f"H H(2-5) H * {step % 7}", name) == cron
    stepped = values(parse(f"H/{step} * H(3-20)/{step} * *", name).minutes)
    assert stepped[0] < step
    assert stepped == list(range(stepped[0], 60, step))


def test_h_is_the_same_for_ever() -> None:
    """A release that moved H would move people's tasks: these values are pinned."""
    assert parse("H H H H H", SEED).text == "10 9 3 3 3"
    assert parse("H/15 H(0-7) * * *", SEED).text == "10-59/15 1 * * *"


def test_h_spreads() -> None:
    """A thousand tasks with the same line do not start in the same minute."""
    minutes = {parse("H * * * *", f"default/task-{number}").minutes for number in range(1000)}
    assert len(minutes) == 60


def _expression() -> st.SearchStrategy[str]:
    def entry(low: int, high: int) -> st.SearchStrategy[str]:
        number = st.integers(low, high)
        span = st.tuples(number, number).map(sorted).map(lambda ends: f"{ends[0]}-{ends[1]}")
        step = st.integers(1, min(high, 31) - low or 1).map(lambda every: f"/{every}")
        plain = st.one_of(number.map(str), span, st.just("*"))
        return st.one_of(plain, st.tuples(plain, step).map("".join))

    def field(low: int, high: int) -> st.SearchStrategy[str]:
        return st.lists(entry(low, high), min_size=1, max_size=4).map(",".join)

    return st.tuples(field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 7)).map(" ".join)


@settings(max_examples=400, deadline=None)
@given(_expression())
def test_both_readers_agree(text: str) -> None:
    """No expression that the grammar takes is expanded to other values by croniter (CO3016 never comes)."""
    cron = attempt(text)
    if isinstance(cron, ScheduleError):
        assert cron.rule == "CO3006", text  # a step can be larger than the field
        return
    masks = (cron.minutes, cron.hours, cron.days, cron.months, cron.weekdays)
    for field, mask in zip(FIELDS, masks, strict=True):
        assert values(mask)
        assert set(values(mask)) <= set(range(field.first, field.last + 1))


@settings(max_examples=300, deadline=None)
@given(_expression())
def test_the_normalised_text_means_the_same(text: str) -> None:
    """What is shown as the expression is read again as the same expression."""
    cron = attempt(text)
    if isinstance(cron, Cron):
        assert parse(cron.text, None) == cron


@settings(max_examples=300, deadline=None)
@given(_expression())
def test_every_expression_has_words(text: str) -> None:
    """What can be read can be said, in one line."""
    words = schedule.describe(ScheduleSpec(cron=(text,)))
    assert words.strip()
    assert words.isprintable()
    if isinstance(attempt(text), Cron):
        assert '"' not in words


@settings(max_examples=500, deadline=None)
@given(st.text(alphabet="0123456789*/,-#LHRW?@() \tMONjan", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text makes the grammar fail in any other way than by saying what is wrong."""
    error = attempt(text)
    if isinstance(error, ScheduleError):
        assert error.rule in schedule.CODES
        assert error.message.endswith(".")
