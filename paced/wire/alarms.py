"""What needs a person: found by rules on what is measured."""

from enum import StrEnum

from .base import Resource, example


class AlarmName(StrEnum):
    """What is wrong."""

    GRADER_FAILING = "grader_failing"
    ROLLOUTS_FAILING = "rollouts_failing"
    NOTHING_TO_LEARN = "nothing_to_learn"
    HOLDOUT_FALLING = "holdout_falling"
    WORKERS_GONE = "workers_gone"
    LEASES_LOST = "leases_lost"
    PROCESS_BEHIND = "process_behind"


class Severity(StrEnum):
    """Serious: work is lost or wasted until someone acts."""

    WARNING = "warning"
    SERIOUS = "serious"


class Alarm(Resource):
    """One thing that needs a person; `command` shows more of it or mends it, `measurement_id` is null of the service.

    Measurements on which nobody has worked for a day raise none.
    """

    model_config = example(
        name="workers_gone",
        severity="serious",
        measurement_id="mea_8sKd",
        sentence="Problems of smollm2 on arithmetic wait at checkpoint 3 for 14 minutes, and no worker was seen since.",
        command="paced rollout smollm2 --measurement mea_8sKd",
    )

    name: AlarmName
    severity: Severity
    measurement_id: str | None
    sentence: str
    command: str
