"""The sequence of a run's batches: resumed where it was saved, shared out to ranks, acknowledged after the step."""

import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from app.main import create_app
from app.settings import Settings
from paced import Client, wire
from paced.errors import NotFound, NothingEligible
from paced.stream import Draw, Ranks, Stream
from paced.testing import InProcess, in_process
from tests.app.world import build
from tests.service import ADMIN_KEY, TestClock

NUMBERS = itertools.count()


class Line(httpx2.BaseTransport):
    """The service in this process, over a line that can be cut."""

    def __init__(self, inside: InProcess) -> None:
        self._inside = inside
        self.is_cut = False

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if self.is_cut:
            raise httpx2.ConnectError("cut")
        return self._inside.handle_request(request)


@pytest.fixture(scope="module")
def clock() -> TestClock:
    return TestClock()


@pytest.fixture(scope="module")
def line(clock: TestClock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    settings = Settings(data=tmp_path_factory.mktemp("stream") / "data", admin_key=ADMIN_KEY)
    with in_process(create_app(settings, clock)) as inside:
        yield Line(inside)


@pytest.fixture
def client(line: Line) -> Iterator[Client]:
    with Client("http://service", ADMIN_KEY, retry_s=0.0, http_transport=line) as made:
        yield made


Make = Callable[..., Stream]


@pytest.fixture
def curriculum(client: Client, tmp_path: Path, request: pytest.FixtureRequest) -> wire.Curriculum:
    options = {"holdout_share": 0.0, "batch_ttl_s": 60, **getattr(request, "param", {})}
    return build(client, tmp_path, 48, suffix=f"-{next(NUMBERS)}", **options)


@pytest.fixture
def make(client: Client, curriculum: wire.Curriculum) -> Make:
    def made(run: str = "run", size: int = 4, **options: object) -> Stream:
        return Stream(client, curriculum.name, run, size, **{"patience_s": 0.0, "n_ahead": 0, **options})

    return made


def take(stream: Stream, n: int) -> list[Draw]:
    """Train on `n` draws."""
    found = []
    for draw in itertools.islice(stream, n):
        found.append(draw)
        stream.acknowledge(draw)
    return found


def log_of(client: Client, curriculum: wire.Curriculum) -> list[wire.Batch]:
    return list(client.batches(curriculum.curriculum_id, limit=100))


def ids(draws: list[Draw]) -> list[str]:
    return [draw.batch.batch_id for draw in draws]


def test_draws_come_in_order_with_their_texts(make: Make, client: Client, curriculum: wire.Curriculum) -> None:
    drawn = take(make(), 5)
    assert [draw.position for draw in drawn] == list(range(5))
    assert [draw.batch.step for draw in drawn] == list(range(5))
    for draw in drawn:
        assert draw.batch == client.batch(draw.batch.batch_id).model_copy(update={"state": wire.BatchState.OPEN})
        assert [weight for _, weight in draw.items()] == draw.batch.loss_weight
    log = log_of(client, curriculum)
    assert [batch.batch_id for batch in log] == ids(drawn)
    assert {batch.state for batch in log} == {"acknowledged"}


@pytest.mark.parametrize("n_ahead", [0, 1, 3])
def test_a_resumed_run_goes_on_behind_the_last_step_saved(
    make: Make, client: Client, curriculum: wire.Curriculum, n_ahead: int
) -> None:
    first = make(n_ahead=n_ahead)
    before = take(first, 3)
    state = first.state_dict()
    take(first, 2)  # done after the state was saved, and lost with the weights

    second = make(n_ahead=n_ahead)
    second.load_state_dict(state)
    after = take(second, 4)
    assert [draw.position for draw in after] == [3, 4, 5, 6]
    assert len(set(ids(before + after))) == 7
    logged = [batch.batch_id for batch in log_of(client, curriculum) if batch.state == "acknowledged"]
    assert sorted(logged) == sorted(ids(before + after)), "the service drew each step once"


def test_without_a_state_the_run_begins_again_with_the_same_batches(make: Make) -> None:
    assert ids(take(make(), 3)) == ids(take(make(), 3))
    assert not set(ids(take(make("other"), 3))) & set(ids(take(make(), 3)))


def test_what_was_drawn_ahead_is_found_again(make: Make, client: Client, curriculum: wire.Curriculum) -> None:
    stream = make(n_ahead=3)
    draws = iter(stream)
    stream.acknowledge(next(draws))
    second = next(draws)  # the crash: its step was not done, more were drawn
    again = make(n_ahead=3)
    again.load_state_dict(stream.state_dict())
    assert take(again, 6)[0] == second
    log = log_of(client, curriculum)
    assert len(log) <= 7 + 3
    assert [batch.step for batch in log] == list(range(len(log)))


@pytest.mark.parametrize("n_ranks", [1, 2, 3])
def test_ranks_share_a_batch_and_the_first_acknowledges(
    make: Make, client: Client, curriculum: wire.Curriculum, n_ranks: int
) -> None:
    ranks = [make(size=7, ranks=Ranks(rank, n_ranks)) for rank in range(n_ranks)]
    for step, draws in enumerate(itertools.islice(zip(*ranks, strict=False), 3)):
        whole = client.batch(draws[0].batch.batch_id)
        parts = [draw.batch for draw in draws]
        assert {part.batch_id for part in parts} == {whole.batch_id}
        assert sorted(i for part in parts for i in part.problem_id) == sorted(whole.problem_id)
        assert sum(part.size for part in parts) == 7
        for rank, part in enumerate(parts):
            assert part.problem_id == whole.problem_id[rank::n_ranks]
            assert [problem.problem_id for problem, _ in part.items()] == part.problem_id
            assert part.loss_weight == whole.loss_weight[rank::n_ranks]
        for stream, draw in reversed(list(zip(ranks, draws, strict=True))):
            assert client.batch(whole.batch_id).state == "open"
            stream.acknowledge(draw)
        assert client.batch(whole.batch_id).state == "acknowledged"
        assert {stream.state_dict()["position"] for stream in ranks} == {step + 1}


def test_ranks_with_draws_of_their_own(make: Make, client: Client, curriculum: wire.Curriculum) -> None:
    ranks = [make(ranks=Ranks(rank, 2, "own")) for rank in range(2)]
    drawn = [take(stream, 3) for stream in ranks]
    assert all(draw.batch.size == 4 for draws in drawn for draw in draws)
    assert len(set(ids(drawn[0] + drawn[1]))) == 6
    assert {batch.state for batch in log_of(client, curriculum)} == {"acknowledged"}


def test_a_rank_outside_is_refused() -> None:
    with pytest.raises(ValueError, match="rank 2 is not one of 2 ranks"):
        Ranks(2, 2)


def test_a_batch_that_expired_unused_is_drawn_anew(
    make: Make, clock: TestClock, client: Client, curriculum: wire.Curriculum
) -> None:
    stream = make()
    take(stream, 1)
    stale = next(iter(stream))
    clock.advance(61)
    again = make()
    again.load_state_dict(stream.state_dict())
    fresh = take(again, 2)
    assert [draw.position for draw in fresh] == [1, 2]
    assert stale.batch.batch_id not in ids(fresh)
    once_more = make()
    once_more.load_state_dict(stream.state_dict())
    assert ids(take(once_more, 2)) == ids(fresh)
    assert [batch.step for batch in log_of(client, curriculum)] == [0, 1, 1, 2]


TWO_STAGES = {"schedule": [{"stage": "forward_kl", "steps": 2}, {"stage": "reverse_kl", "steps": 2}]}


@pytest.mark.parametrize("curriculum", [TWO_STAGES], indirect=True)
def test_expired_batches_take_no_step_of_the_schedule(make: Make, clock: TestClock) -> None:
    stream = make(n_ahead=3)
    take(stream, 1)
    clock.advance(61)  # the process died meanwhile, with steps 1 and 2 drawn ahead
    again = make()
    again.load_state_dict(stream.state_dict())
    rest = take(again, 10)
    assert [(draw.position, draw.batch.step) for draw in rest] == [(1, 1), (2, 2), (3, 3)]
    assert [draw.batch.stage for draw in rest] == ["forward_kl", "reverse_kl", "reverse_kl"]


def test_a_step_that_took_too_long_is_said(make: Make, clock: TestClock, caplog: pytest.LogCaptureFixture) -> None:
    stream = make()
    draw = next(iter(stream))
    clock.advance(61)
    with caplog.at_level(logging.WARNING):
        stream.acknowledge(draw)
    assert "too late to count" in caplog.text
    assert "batch_ttl_s" in caplog.text
    assert stream.state_dict()["position"] == 1


def test_what_could_not_be_acknowledged_is_later(
    make: Make, line: Line, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    stream = make()
    draws = list(itertools.islice(stream, 2))
    line.is_cut = True
    with caplog.at_level(logging.WARNING):
        stream.acknowledge(draws[0])
    line.is_cut = False
    assert "not acknowledged yet" in caplog.text
    state = stream.state_dict()
    assert (state["position"], state["unacknowledged"]) == (1, [draws[0].batch.batch_id])

    again = make()
    again.load_state_dict(state)
    again.acknowledge(draws[1])
    assert {client.batch(draw.batch.batch_id).state for draw in draws} == {"acknowledged"}
    assert again.state_dict()["unacknowledged"] == []


def test_outcomes_are_observations(make: Make, client: Client, curriculum: wire.Curriculum) -> None:
    stream = make()
    draw = next(iter(stream))
    first = draw.batch.problem_id[0]
    stream.acknowledge(draw, [wire.Outcome(problem_id=first, checkpoint_index=0, n_passed=3, n_failed=5)])
    assert client.estimate(curriculum.measurement_id, first).n_passed == 3


def test_it_waits_for_problems_and_then_says_why_none_came(make: Make, client: Client) -> None:
    whole = next(iter(make("first", size=48)))
    with pytest.raises(NothingEligible, match="48 in open batches"):
        next(iter(make("second")))
    timer = threading.Timer(0.3, client.acknowledge, [whole.batch.batch_id])
    timer.start()
    assert next(iter(make("third", patience_s=20.0))).batch.size == 4
    timer.join()


SHORT = {"schedule": [{"stage": "forward_kl", "steps": 3}, {"stage": "reverse_kl", "steps": 2}]}


@pytest.mark.parametrize("curriculum", [SHORT], indirect=True)
@pytest.mark.parametrize("n_ahead", [0, 4])
def test_it_ends_with_the_schedule(make: Make, n_ahead: int) -> None:
    stream = make(n_ahead=n_ahead)
    drawn = take(stream, 100)
    assert [draw.batch.stage for draw in drawn] == ["forward_kl"] * 3 + ["reverse_kl"] * 2
    assert take(stream, 100) == []


@pytest.mark.parametrize("curriculum", [SHORT], indirect=True)
def test_a_schedule_made_longer_is_followed(make: Make, client: Client, curriculum: wire.Curriculum) -> None:
    stream = make(ranks=Ranks(0, 2, "own"))
    assert len(take(stream, 100)) == 3
    longer = wire.CurriculumUpdate.model_validate({"schedule": [{"stage": "forward_kl", "steps": 9}]})
    client.update_curriculum(curriculum.curriculum_id, longer)
    assert [draw.position for draw in take(stream, 100)] == [3, 4]


def test_a_state_of_another_run_is_refused(make: Make) -> None:
    state = make("one").state_dict()
    with pytest.raises(ValueError, match="give the run its former name"):
        make("two").load_state_dict(state)


def test_errors_reach_the_trainer(client: Client, curriculum: wire.Curriculum, make: Make, line: Line) -> None:
    with pytest.raises(NotFound, match="no curriculum 'nowhere'"):
        Stream(client, "nowhere", "run", 4)
    with pytest.raises(Exception, match="larger than the pool"):
        next(iter(make(size=49, n_ahead=2)))
    before = threading.active_count()
    draws = iter(make(n_ahead=2))
    next(draws)
    draws.close()  # type: ignore[attr-defined]
    for thread in threading.enumerate():
        if thread.name == "paced-ahead":
            thread.join(10)
    assert threading.active_count() <= before


def test_a_run_keeps_the_size_that_it_began_with(make: Make) -> None:
    take(make(), 1)
    with pytest.raises(ValueError, match="another size than 5: give the size that it began with"):
        take(make(size=5), 1)
    with pytest.raises(ValueError, match="a batch of 0 problems"):
        make(size=0)
