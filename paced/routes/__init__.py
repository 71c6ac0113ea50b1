"""Every route of the service, each once, in the order of the data flow: what both clients have as methods."""

from paced.routes.batches import BatchRoutes
from paced.routes.curricula import CurriculumRoutes
from paced.routes.estimates import EstimateRoutes
from paced.routes.problems import ProblemRoutes
from paced.routes.rollouts import RolloutRoutes
from paced.routes.service import ServiceRoutes
from paced.routes.students import StudentRoutes
from paced.routes.training import TrainingRoutes

__all__ = ["Routes"]


class Routes(
    ProblemRoutes,
    StudentRoutes,
    RolloutRoutes,
    EstimateRoutes,
    CurriculumRoutes,
    BatchRoutes,
    TrainingRoutes,
    ServiceRoutes,
):
    """All stages."""
