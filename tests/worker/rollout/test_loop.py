"""The rollout loop against a real service: what it promises while all goes well, and when things break."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from paced import Client, wire
from paced.errors import Unreachable
from paced.prompts import chat_messages
from tests.service import Service
from tests.worker.rollout.world import FAST, InlinePool, MakeWorld, sums
from worker.rollout.engine import Answer, EngineDown, Sampling
from worker.rollout.loop import LoopOptions, RolloutLoop
from worker.rollout.scripted_engine import ScriptedEngine


def make_loop(client: Any, engine: Any, pool: Any = None, **options: Any) -> RolloutLoop:
    made = LoopOptions(**{"student": "tiny", "worker": "test", **FAST, **options})
    return RolloutLoop(client, engine, pool or InlinePool(), made)


class Meddler:
    """A client whose calls a test can hold up: `before` runs ahead of each and may raise."""

    def __init__(self, client: Client, before: Callable[[str, tuple[Any, ...]], None]) -> None:
        self._client, self._before = client, before

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self._before(name, arguments)
            return getattr(self._client, name)(*arguments)

        return call


async def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


async def test_measures_a_whole_set_as_the_engine_answers(make_world: MakeWorld) -> None:
    world = make_world(sums(30))
    tally = await make_loop(world.client, ScriptedEngine()).run()

    assert tally.failure is None
    assert (tally.n_groups, tally.n_rollouts) == (30, 240)
    assert world.measurement().n_measured == 30
    twin = ScriptedEngine()
    await twin.load_checkpoint("/models/tiny/0")
    sampling = Sampling(n=8, temperature=0.6, top_p=0.95, top_k=0, max_tokens=16, stop=())
    problems = {problem.problem_id: problem for problem in world.client.problems("sums")}
    n_passed = {}
    for problem_id, observations in world.observations().items():
        answers = await twin.generate(chat_messages(problems[problem_id].prompt, _profile()), sampling)
        expected = sum(answer.text == problems[problem_id].answer for answer in answers)
        assert [(seen.n_passed, seen.n_counted) for seen in observations] == [(expected, 8)]
        n_passed[problem_id] = expected
    assert 0 < sum(n_passed.values()) < 240
    assert tally.verdicts == {"pass": sum(n_passed.values()), "fail": 240 - sum(n_passed.values())}


async def test_keeps_the_engine_full_across_leases(make_world: MakeWorld) -> None:
    world = make_world(sums(40))
    engine = ScriptedEngine(delay_s=0.1)
    tally = await make_loop(world.client, engine, max_problems=3, n_groups=8).run()
    assert engine.n_generating_max == 8
    assert tally.n_leases >= 14
    assert world.measurement().n_measured == 40


async def test_loads_a_new_checkpoint_between_prompts(make_world: MakeWorld) -> None:
    world = make_world(sums(24))
    engine = ScriptedEngine(delay_s=0.05)
    loop = make_loop(world.client, engine, max_problems=4, n_groups=4, is_until_idle=False)
    running = asyncio.create_task(loop.run())
    await until(lambda: loop.tally.n_groups >= 8)
    await asyncio.to_thread(
        world.client.register_checkpoint, "tiny", wire.CheckpointCreate(uri="/models/tiny/1", parent_index=0)
    )
    await until(lambda: world.measurement().n_at_latest == 24)
    loop.stop()
    tally = await running

    assert engine.loaded == ["/models/tiny/0", "/models/tiny/1"]
    assert (tally.n_checkpoints_loaded, tally.checkpoint_index, tally.failure) == (2, 1, None)
    seen = {seen.checkpoint_index for group in world.observations().values() for seen in group}
    assert seen == {0, 1}


async def test_stop_reports_what_is_graded_and_releases_the_rest(make_world: MakeWorld) -> None:
    world = make_world(sums(40))
    engine = ScriptedEngine(delay_s=0.3)
    loop = make_loop(world.client, engine, n_groups=4)
    running = asyncio.create_task(loop.run())
    await until(lambda: loop.tally.n_tokens_generated > 0)
    started = time.monotonic()
    loop.stop()
    tally = await running

    assert time.monotonic() - started < 2
    assert tally.failure is None
    assert 0 < tally.n_groups < 40
    after = world.measurement()
    assert (after.n_leased, after.n_measured) == (0, tally.n_groups)


async def test_stop_while_claiming_gives_the_lease_back(make_world: MakeWorld) -> None:
    world = make_world(sums(10))
    claiming = asyncio.Event()
    event_loop = asyncio.get_running_loop()

    def before(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "claim_lease":
            event_loop.call_soon_threadsafe(claiming.set)
            time.sleep(0.3)

    loop = make_loop(Meddler(world.client, before), ScriptedEngine())
    running = asyncio.create_task(loop.run())
    await claiming.wait()
    loop.stop()
    assert (await running).n_groups == 0
    assert world.measurement().n_leased == 0


async def test_outlasts_a_service_that_is_away(make_world: MakeWorld) -> None:
    world = make_world(sums(12))
    refused = []

    def before(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "report_rollouts" and len(refused) < 2:
            refused.append(name)
            raise Unreachable("the test has pulled the plug")

    tally = await make_loop(Meddler(world.client, before), ScriptedEngine()).run()
    assert len(refused) == 2
    assert (tally.n_groups, tally.n_leases_lost, tally.failure) == (12, 0, None)
    assert all(len(group) == 1 for group in world.observations().values())


async def test_stops_in_time_though_the_service_is_away(make_world: MakeWorld) -> None:
    world = make_world(sums(4))

    def before(name: str, arguments: tuple[Any, ...]) -> None:
        if name != "claim_lease":
            raise Unreachable("the test has pulled the plug")

    loop = make_loop(Meddler(world.client, before), ScriptedEngine(), grace_s=0.3)
    running = asyncio.create_task(loop.run())
    await until(lambda: loop.tally.n_tokens_generated > 0)
    started = time.monotonic()
    loop.stop()
    assert (await running).n_groups == 0
    assert time.monotonic() - started < 2


async def test_a_lost_lease_is_counted_and_its_problems_come_back(make_world: MakeWorld) -> None:
    world = make_world(sums(12))
    taken = []

    def before(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "report_rollouts" and not taken:
            taken.append(arguments[0])
            world.client.release_lease(arguments[0], wire.LeaseToken(token=arguments[1].token))

    tally = await make_loop(Meddler(world.client, before), ScriptedEngine(delay_s=0.05), max_problems=6).run()
    assert (tally.n_leases_lost, tally.failure) == (1, None)
    assert tally.n_groups_lost == 6
    assert world.measurement().n_measured == 12
    assert all(len(group) == 1 for group in world.observations().values())


async def test_renews_a_lease_that_outlives_its_ttl(make_world: MakeWorld) -> None:
    world = make_world(sums(3))
    tally = await make_loop(world.client, ScriptedEngine(delay_s=5.0), ttl_s=2.0).run()
    assert (tally.n_leases, tally.n_leases_lost, tally.n_groups) == (1, 0, 3)


async def test_an_engine_failure_moves_no_pass_rate_and_stops_nothing(make_world: MakeWorld) -> None:
    world = make_world([*sums(5), ("Compute 1 + 1. [fail]", "2")])
    loop = make_loop(world.client, ScriptedEngine(), is_until_idle=False)
    running = asyncio.create_task(loop.run())
    await until(lambda: world.measurement().n_measured >= 5 and loop.tally.verdicts["infrastructure"] >= 8)
    loop.stop()
    tally = await running
    assert tally.failure is None
    assert tally.verdicts["pass"] + tally.verdicts["fail"] == 40
    [failing] = [problem for problem in world.client.problems("sums") if "[fail]" in str(problem.prompt)]
    observations = world.client.estimate(world.measurement_id, failing.problem_id).observations
    assert observations
    assert all((seen.n_counted, seen.verdicts) == (0, {"infrastructure": 8}) for seen in observations)


async def test_truncated_answers_are_told_apart_and_not_graded(make_world: MakeWorld) -> None:
    world = make_world([("Compute 1 + 1. [truncate]", "2")])
    pool = InlinePool()
    tally = await make_loop(world.client, ScriptedEngine(), pool).run()
    assert tally.verdicts == {"truncated": 8}
    assert pool.n_graded == 0


async def test_equal_answers_are_graded_once(make_world: MakeWorld) -> None:
    prompt = "Compute 1 + 1."
    world = make_world([(prompt, "2")])
    pool = InlinePool()
    tally = await make_loop(world.client, ScriptedEngine(pass_rates={prompt: 1.0}), pool).run()
    assert tally.verdicts == {"pass": 8}
    assert pool.n_graded == 1


async def test_a_checkpoint_that_never_loads_ends_the_worker(make_world: MakeWorld) -> None:
    world = make_world(sums(4), uri="/models/[fail]")
    tally = await make_loop(world.client, ScriptedEngine()).run()
    assert tally.failure is not None
    assert "/models/[fail] does not load" in tally.failure
    assert world.measurement().n_leased == 0


class DyingEngine(ScriptedEngine):
    """Answers twice, then is down."""

    async def generate(self, messages: Any, sampling: Sampling) -> list[Answer]:
        self.n_asked = getattr(self, "n_asked", 0) + 1
        if self.n_asked > 2:
            raise EngineDown("the engine's process died")
        return await super().generate(messages, sampling)


async def test_a_dead_engine_ends_the_worker_and_blames_no_problem(make_world: MakeWorld) -> None:
    world = make_world(sums(8))
    tally = await make_loop(world.client, DyingEngine(), n_groups=1).run()
    assert tally.failure == "the engine's process died"
    assert set(tally.verdicts) <= {"pass", "fail"}
    after = world.measurement()
    assert (after.n_leased, after.n_measured) == (0, 2)


async def test_refuses_a_profile_of_another_grader_version(make_world: MakeWorld) -> None:
    world = make_world(sums(4), grader_version="0-other")
    tally = await make_loop(world.client, ScriptedEngine()).run()
    assert tally.failure is not None
    assert "grader version 0-other" in tally.failure
    assert world.measurement().n_leased == 0


@pytest.mark.parametrize(("key", "student", "says"), [("wrong", "tiny", "401"), (None, "nobody", "nobody")])
async def test_says_why_the_service_refuses(
    make_world: MakeWorld, service: Service, key: str | None, student: str, says: str
) -> None:
    make_world(sums(1))
    with service.client(key) if key else service.client() as client:
        tally = await make_loop(client, ScriptedEngine(), student=student).run()
    assert tally.failure is not None
    assert says in tally.failure


def _profile() -> wire.Profile:
    example = wire.Profile.model_config["json_schema_extra"]["examples"][0]  # type: ignore[index,call-overload]
    return wire.Profile.model_validate(example)
