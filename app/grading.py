"""Verdicts on request: the workers' graders, in killable processes that start with the first request."""

import asyncio
from collections.abc import Iterator
from typing import Annotated, cast

from fastapi import APIRouter, Query, Request
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.auth.guard import requires
from app.errors import Busy
from app.http.pages import NoQuery
from paced.wire import GradedAnswer, GradeRequest, GraderStats, Grades, Scope
from worker.grading import GRADER_VERSION, GraderPool

router = APIRouter(prefix="/v1/grade", tags=["grading"])
MAX_WAITING = 20_000  # answers in the queue, above which a client is asked to come again


class GradingService(Collector):
    """A pool of grading processes, and what it has done, for Prometheus."""

    def __init__(self, n_processes: int, deadline_s: float) -> None:
        self._pool = GraderPool(n_processes, deadline_s=deadline_s)
        self._opening: asyncio.Task[GraderPool] | None = None

    async def grade(self, body: GradeRequest) -> Grades:
        """Judge answers; the first request waits a second for the processes."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._pool.__aenter__())
        pool = await asyncio.shield(self._opening)
        if pool.stats().n_waiting + len(body.answers) > MAX_WAITING:
            raise Busy(f"{pool.stats().n_waiting} answers wait to be judged; come again", retry_after_s=2.0)
        calls = [pool.grade(a.text, a.answer, a.grader, a.policy) for a in body.answers]
        found = await asyncio.gather(*calls)
        grades = [
            GradedAnswer(verdict=g.verdict, extracted=g.extracted, seconds=g.seconds, detail=g.detail) for g in found
        ]
        return Grades(grader_version=GRADER_VERSION, grades=grades)

    def stats(self) -> GraderStats:
        """What the pool has done since the service started."""
        return GraderStats(grader_version=GRADER_VERSION, **self._pool.stats().as_dict())

    def collect(self) -> Iterator[Metric]:
        """The same for `/metrics`; the slowest answers are in GET /v1/grade/stats."""
        found = self.stats()
        answers = CounterMetricFamily("paced_graded_answers", "Answers judged, by verdict", labels=["verdict"])
        for verdict, n in found.n_by_verdict.items():
            answers.add_metric([verdict], n)
        seconds = CounterMetricFamily("paced_grader_seconds", "Time spent judging, by grader", labels=["grader"])
        for grader, spent in found.seconds_by_grader.items():
            seconds.add_metric([grader], spent)
        yield answers
        yield seconds
        yield CounterMetricFamily("paced_grader_replaced", "Grading processes killed or lost", value=found.n_replaced)
        yield CounterMetricFamily(
            "paced_grader_out_of_memory", "Answers that met the memory bound", value=found.n_out_of_memory
        )
        yield GaugeMetricFamily("paced_grader_waiting", "Answers waiting to be judged", value=found.n_waiting)
        slowest_s = max((slow.seconds for slow in found.slowest), default=0.0)
        yield GaugeMetricFamily("paced_grader_slowest_seconds", "The slowest answer", value=slowest_s)

    async def close(self) -> None:
        """End the processes."""
        if self._opening is not None:
            await asyncio.wait({self._opening})
            await self._pool.close()


def _grading(request: Request) -> GradingService:
    return cast("GradingService", request.app.state.grading)


@router.post("", operation_id="grade", dependencies=[requires(Scope.TRAIN)])
async def grade(request: Request, body: GradeRequest, _query: Annotated[NoQuery, Query()]) -> Grades:
    """Judge answers that a client brings; nothing is stored."""
    return await _grading(request).grade(body)


@router.get("/stats", operation_id="grader_stats", dependencies=[requires(Scope.READ)])
async def stats(request: Request, _query: Annotated[NoQuery, Query()]) -> GraderStats:
    """What the service's graders have done since it started, with the slowest answers."""
    return _grading(request).stats()
