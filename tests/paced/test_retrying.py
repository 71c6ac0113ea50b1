"""When a request is sent again: pure, with a clock of the test's own."""

import httpx2
import pytest

from paced.retrying import MAX_INTERNAL_ERRORS, MAX_RETRY_AFTER_S, Tries, retry_after_s

RESET = httpx2.ReadError("reset by peer")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def waits(tries: Tries, clock: Clock, outcome: httpx2.Response | httpx2.TransportError, n: int = 1000) -> list[float]:
    """The waits until the tries are over, time passing by nothing else."""
    found: list[float] = []
    while len(found) < n and (wait_s := tries.wait_s(outcome)) is not None:
        found.append(wait_s)
        clock.now += wait_s
    return found


@pytest.mark.parametrize("outcome", [RESET, *(httpx2.Response(status) for status in (429, 502, 503, 504))], ids=repr)
def test_waits_double_up_to_five_seconds_and_end_in_time(outcome: httpx2.Response | httpx2.TransportError) -> None:
    clock = Clock()
    found = waits(Tries(60.0, clock, lambda _, high: high), clock, outcome)
    assert found[:7] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0])
    assert set(found[7:]) == {5.0}
    assert 54 < clock.now - 100 < 60


def test_each_wait_is_drawn_from_its_upper_half() -> None:
    for _ in range(50):
        clock = Clock()
        found = waits(Tries(20.0, clock), clock, RESET)
        highest = [min(0.1 * 2**i, 5.0) for i in range(len(found))]
        assert all(high / 2 <= wait_s <= high for wait_s, high in zip(found, highest, strict=True))
    apart = {Tries(20.0, Clock()).wait_s(RESET) for _ in range(50)}
    assert len(apart) == 50


@pytest.mark.parametrize("status", [200, 201, 204, 304, 400, 401, 404, 409, 413, 422, 501])
def test_other_answers_are_final(status: int) -> None:
    assert Tries(60.0, Clock()).wait_s(httpx2.Response(status)) is None


def test_an_internal_error_that_stays_is_final_within_seconds() -> None:
    clock = Clock()
    tries = Tries(120.0, clock)
    assert len(waits(tries, clock, httpx2.Response(500))) == MAX_INTERNAL_ERRORS - 1
    assert clock.now - 100 < 4


def test_internal_errors_between_others_do_not_add_up() -> None:
    tries = Tries(1e6, Clock())
    for _ in range(20):
        assert tries.wait_s(httpx2.Response(500)) is not None
        assert tries.wait_s(RESET) is not None
        assert tries.wait_s(httpx2.Response(500)) is not None
        assert tries.wait_s(httpx2.Response(503)) is not None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "2.5"}, 2.5),
        ({"Retry-After": "86400"}, MAX_RETRY_AFTER_S),
        ({"Retry-After": "Wed, 25 Nov 2026 08:00:07 GMT", "Date": "Wed, 25 Nov 2026 08:00:00 GMT"}, 7.0),
        ({"Retry-After": "Wed, 25 Nov 2026 08:00:00 GMT", "Date": "Wed, 25 Nov 2026 08:00:07 GMT"}, 0.0),
        ({"Retry-After": "Wed, 25 Nov 2026 08:00:00 GMT", "Date": "now"}, None),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": ""}, None),
        ({}, None),
    ],
)
def test_the_service_may_say_how_long(headers: dict[str, str], seconds: float | None) -> None:
    response = httpx2.Response(503, headers=headers)
    assert retry_after_s(response) == seconds
    wait_s = Tries(300.0, Clock()).wait_s(response)
    assert wait_s is not None
    low, high = (0.05, 0.1) if seconds is None else (seconds, seconds + 0.25)
    assert low <= wait_s <= high


def test_it_does_not_wait_for_what_comes_too_late() -> None:
    response = httpx2.Response(429, headers={"Retry-After": "30"})
    assert Tries(20.0, Clock()).wait_s(response) is None
    assert Tries(0.0, Clock()).wait_s(RESET) is None
