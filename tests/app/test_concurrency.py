"""Many clients at once: nothing is held twice, nothing is counted twice, nothing breaks."""

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psycopg
import pytest

from app.db.engine import Database
from app.db.invariants import broken
from app.flow.estimates.rebuild import RebuildStore, Rebuilt
from paced import Client, wire
from paced.errors import LeaseLost, NothingEligible
from tests.app.conftest import MakeWorld
from tests.app.world import at_once, build, group, leased, token, write_problems
from tests.service import Service, postgres_databases, serve

N_PROBLEMS = 120
SECONDS = 4.0


@dataclass
class Crowd:
    """Workers and trainers on one curriculum, and what the service acknowledged to them."""

    student: str
    curriculum_id: str
    ends_at: float
    counted: Counter[tuple[int, str]] = field(default_factory=Counter)
    in_hand: list[set[int]] = field(default_factory=list)
    n_late: int = 0
    n_batches: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def is_open(self) -> bool:
        return time.monotonic() < self.ends_at

    def note(self, problem_id: int, n_passed: int, n_counted: int) -> None:
        for name, n in (("n_groups", 1), ("n_passed", n_passed), ("n_counted", n_counted)):
            self.counted[problem_id, name] += n

    def work(self, client: Client, seed: int) -> None:
        """Claim, report in two parts, sometimes twice, sometimes too late."""
        rng = random.Random(seed)
        while self.is_open():
            body = wire.LeaseClaim(student=self.student, worker=f"w{seed}", max_problems=rng.randint(1, 20), ttl_s=1.0)
            lease = client.claim_lease(body)
            if lease.lease_id is None or lease.checkpoint is None:
                time.sleep(0.02)
                continue
            made = [group(i, rng.randint(0, 8), checkpoint=lease.checkpoint.index) for i in leased(lease)]
            if rng.random() < 0.1:
                time.sleep(1.1)
            for part in (made[::2], made[1::2]):
                if part:
                    self._report(client, lease, part, is_doubled=rng.random() < 0.3)

    def _report(self, client: Client, lease: wire.Lease, part: list[wire.RolloutGroup], is_doubled: bool) -> None:
        body = wire.LeaseReport(token=token(lease).token, groups=part)
        try:
            receipt = client.report_rollouts(str(lease.lease_id), body)
        except LeaseLost:
            with self.lock:
                self.n_late += 1
            return
        assert (receipt.n_accepted, receipt.n_replayed) == (len(part), 0)
        with self.lock:
            for item in part:
                self.note(item.problem_id, sum(r.verdict == "pass" for r in item.rollouts), len(item.rollouts))
        if is_doubled:
            assert client.report_rollouts(str(lease.lease_id), body).n_replayed == len(part)

    def train(self, client: Client, seed: int) -> None:
        """Draw, acknowledge with outcomes, sometimes twice."""
        rng = random.Random(seed)
        while self.is_open():
            try:
                batch = client.draw_batch(self.curriculum_id, 12, include="ids")
            except NothingEligible:
                continue
            mine = set(batch.problem_id)
            with self.lock:
                assert all(mine.isdisjoint(other) for other in self.in_hand)
                self.in_hand.append(mine)
            sent = [
                wire.Outcome(problem_id=i, checkpoint_index=0, n_passed=rng.randint(0, 3), n_failed=1)
                for i in rng.sample(batch.problem_id, 3)
            ]
            with self.lock:
                self.in_hand.remove(mine)
            assert not client.acknowledge(batch.batch_id, sent).is_replay
            with self.lock:
                self.n_batches += 1
                for item in sent:
                    self.note(item.problem_id, item.n_passed, item.n_passed + item.n_failed)
            if rng.random() < 0.3:
                assert client.acknowledge(batch.batch_id, sent).is_replay

    def unsettle(self, client: Client, folder: Path) -> None:
        """New weights, more problems and a changed kernel, while all goes on."""
        for turn in range(1, 4):
            time.sleep(SECONDS / 5)
            client.register_checkpoint(self.student, wire.CheckpointCreate(uri=f"/models/{turn}"))
            client.import_problems("sums", write_problems(folder, N_PROBLEMS + 20 * turn))
            client.update_curriculum(self.curriculum_id, wire.CurriculumUpdate(gamma=float(turn)))

    def watch(self, service: Service) -> None:
        """Ask the database again and again."""
        while self.is_open():
            assert broken(service.settings.database_url) == {}
            assert twice_in_open_batches(service) == []


def twice_in_open_batches(service: Service) -> list[int]:
    with psycopg.connect(str(service.settings.database)) as conn:
        rows = conn.execute("SELECT ordinals FROM batches WHERE state = 'open'").fetchall()
    seen = Counter(int(ordinal) for (blob,) in rows for ordinal in np.frombuffer(blob, "<i8"))
    return [ordinal for ordinal, n in seen.items() if n > 1]


@pytest.fixture
def two_services(tmp_path: Path) -> Iterator[list[Service]]:
    """Two API processes, so to speak, on one PostgreSQL database."""
    with postgres_databases() as url, ExitStack() as stack:
        yield [stack.enter_context(serve(tmp_path / name, url)) for name in ("a", "b")]


def test_two_workers_and_two_trainers_on_two_services(two_services: list[Service], tmp_path: Path) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(service.client()) for service in (*two_services, *two_services)]
        curriculum = build(clients[0], tmp_path, N_PROBLEMS, holdout_share=0.1)
        crowd = Crowd("tiny", curriculum.curriculum_id, time.monotonic() + SECONDS)
        jobs: list[Callable[[], None]] = [
            *(lambda i=i: crowd.work(clients[i], i) for i in range(2)),
            *(lambda i=i: crowd.train(clients[i], i) for i in range(4)[2:]),
            lambda: crowd.unsettle(clients[0], tmp_path),
            lambda: crowd.watch(two_services[0]),
        ]
        at_once(len(jobs), lambda i: jobs[i]())

        client = clients[0]
        estimates = list(client.estimates(curriculum.measurement_id, limit=1000))
        totals = {
            (e.problem_id, name): getattr(e, name) for e in estimates for name in ("n_groups", "n_passed", "n_counted")
        }
        assert {key: n for key, n in totals.items() if n} == {key: n for key, n in crowd.counted.items() if n}
        assert len(estimates) == N_PROBLEMS + 60
        assert sum(e.n_groups for e in estimates) > N_PROBLEMS
        assert crowd.n_batches > 5
        assert broken(two_services[0].settings.database_url) == {}
        assert_log_rebuilds_estimates(two_services[0])


def assert_log_rebuilds_estimates(service: Service) -> None:
    """Every posterior column and ability is what its observations, in order, make of nothing, bit for bit."""

    async def check() -> list[Rebuilt]:
        async with Database(service.settings.database_url) as db:
            store = RebuildStore(db)
            return [await store.check(measurement_id) for measurement_id in await store.measurement_ids()]

    (found,) = asyncio.run(check())
    assert found.n_observations > N_PROBLEMS
    assert (found.changed, found.n_abilities_changed) == ([], 0)


def test_32_writers_and_readers_on_sqlite(tmp_path: Path) -> None:
    """No error of any kind reaches a client that never retries."""
    with serve(tmp_path / "data", None) as service, ExitStack() as stack:
        clients = [stack.enter_context(service.client()) for _ in range(32)]
        curriculum = build(clients[0], tmp_path, 200, holdout_share=0.0)
        measurement_id = curriculum.measurement_id

        def write(client: Client, i: int) -> int:
            lease = client.claim_lease(wire.LeaseClaim(student="tiny", worker=str(i), max_problems=3))
            client.report_rollouts(
                str(lease.lease_id),
                wire.LeaseReport(token=token(lease).token, groups=[group(p, 3) for p in leased(lease)]),
            )
            batch = client.draw_batch(curriculum.curriculum_id, 2)
            client.acknowledge(batch.batch_id)
            return len(lease.problems)

        def read(client: Client, i: int) -> int:
            client.measurement(measurement_id)
            list(client.estimates(measurement_id))
            list(client.problems("sums", search=str(i)))
            client.frontier(measurement_id)
            list(client.batches(curriculum.curriculum_id))
            return 0

        def both(i: int) -> int:
            return sum((write if i % 2 else read)(clients[i], i) for _ in range(4))

        assert sum(at_once(32, both)) == 16 * 4 * 3
        assert sum(e.n_groups for e in clients[0].estimates(measurement_id)) == 16 * 4 * 3
        assert broken(service.settings.database_url) == {}


def test_creating_the_same_thing_at_once_makes_it_once(make_world: MakeWorld) -> None:
    world = make_world(5)
    client, first = world.client, world.curriculum
    name = f"at-once-{first.name}"
    parts = {"student": first.student, "problem_set": first.problem_set}
    profile = wire.ProfileCreate(max_tokens=77, system_prompt=name)
    creations: list[Callable[[], object]] = [
        lambda: client.create_problem_set(wire.ProblemSetCreate(name=name)),
        lambda: client.create_student(wire.StudentCreate(name=name)),
        lambda: client.create_profile(profile),
        lambda: client.create_measurement(
            wire.MeasurementCreate.model_validate({**parts, "profile_id": client.create_profile(profile).profile_id})
        ),
        lambda: client.create_curriculum(
            wire.CurriculumCreate.model_validate({"name": name, **parts, "profile_id": first.profile_id})
        ),
        lambda: client.create_run(wire.RunCreate(curriculum_id=first.curriculum_id, name=name)),
        lambda: client.draw_batch(first.curriculum_id, 1, key=name),
        lambda: client.register_checkpoint(first.student, wire.CheckpointCreate(uri="/same"), key=name),
        lambda: world.claim(2, key=name),
    ]
    for create in creations:
        made = at_once(6, lambda _, create=create: create())
        assert all(one == made[0] for one in made)


def test_checkpoints_registered_at_once_get_an_index_each(make_world: MakeWorld) -> None:
    world = make_world(1)
    made = at_once(8, lambda _: world.new_checkpoint())
    assert sorted(checkpoint.index for checkpoint in made) == list(range(1, 9))


def test_a_set_grows_while_it_is_measured_and_drawn_from(make_world: MakeWorld, tmp_path: Path) -> None:
    world = make_world(10, holdout_share=0.0)
    sizes = list(range(20, 120, 10))

    def turn(i: int) -> None:
        for size in sizes:
            if i == 0:
                world.client.import_problems(world.curriculum.problem_set, write_problems(tmp_path, size))
            elif i < 4:
                batch = world.draw(2, include="ids")
                world.client.acknowledge(batch.batch_id)
            else:
                world.claim(3)

    at_once(8, turn)
    world.claim(1)
    assert world.measurement.n_problems == sizes[-1]
    assert broken(world.service.settings.database_url) == {}
