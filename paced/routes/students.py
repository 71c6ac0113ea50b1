"""Stage 2: students, checkpoints, sampling profiles."""

from paced import wire
from paced.calls import Call, Pages, at, get, listed, post, route


class StudentRoutes:
    """Calls on students and how they are sampled."""

    @route
    def create_student(self, body: wire.StudentCreate) -> Call[wire.Student]:
        """Create a student; the same one again is returned."""
        return post("/v1/students", body, wire.Student)

    @route
    def student(self, name: str) -> Call[wire.Student]:
        """One student with its newest checkpoint."""
        return get(at("/v1/students/{}", name), wire.Student)

    @listed
    def students(self) -> Pages[wire.Student]:
        """All students."""
        return Pages("/v1/students", wire.Student)

    @route
    def register_checkpoint(
        self, student: str, body: wire.CheckpointCreate, key: str | None = None
    ) -> Call[wire.Checkpoint]:
        """Register new weights; rollout workers load them next."""
        return post(at("/v1/students/{}/checkpoints", student), body, wire.Checkpoint, key)

    @listed
    def checkpoints(self, student: str) -> Pages[wire.Checkpoint]:
        """All checkpoints of a student, oldest first."""
        return Pages(at("/v1/students/{}/checkpoints", student), wire.Checkpoint)

    @route
    def create_profile(self, body: wire.ProfileCreate) -> Call[wire.Profile]:
        """Store a sampling profile; the same content has the same id."""
        return post("/v1/sampling-profiles", body, wire.Profile)

    @route
    def profile(self, profile_id: str) -> Call[wire.Profile]:
        """One sampling profile."""
        return get(at("/v1/sampling-profiles/{}", profile_id), wire.Profile)

    @listed
    def profiles(self) -> Pages[wire.Profile]:
        """All sampling profiles."""
        return Pages("/v1/sampling-profiles", wire.Profile)
