"""What a service's graders have done."""

from .base import Resource, example


class SlowAnswer(Resource):
    """An answer that took long to judge: wall seconds, its grader, and how its text begins."""

    seconds: float
    grader: str
    head: str


class GraderStats(Resource):
    """Counts since the service started; `n_replaced` processes were killed or lost; slowest answers first."""

    model_config = example(
        grader_version="2",
        n_graded=1024,
        n_waiting=0,
        n_replaced=1,
        n_out_of_memory=0,
        n_by_verdict={"pass": 700, "fail": 323, "timeout": 1},
        n_by_grader={"math": 1024},
        seconds_by_grader={"math": 1.9},
        slowest=[{"seconds": 5.0, "grader": "math", "head": "9^9^9^9"}],
    )

    grader_version: str
    n_graded: int
    n_waiting: int
    n_replaced: int
    n_out_of_memory: int
    n_by_verdict: dict[str, int]
    n_by_grader: dict[str, int]
    seconds_by_grader: dict[str, float]
    slowest: list[SlowAnswer]
