"""Stage 5: curricula."""

from paced import wire
from paced.calls import Call, Pages, at, get, listed, patch, post, route


class CurriculumRoutes:
    """Calls on what training jobs subscribe to."""

    @route
    def create_curriculum(self, body: wire.CurriculumCreate) -> Call[wire.Curriculum]:
        """Create a curriculum and the measurement it needs; the same one again is returned."""
        return post("/v1/curricula", body, wire.Curriculum)

    @route
    def curriculum(self, curriculum_id: str) -> Call[wire.Curriculum]:
        """One curriculum, in its newest version."""
        return get(at("/v1/curricula/{}", curriculum_id), wire.Curriculum)

    @listed
    def curricula(
        self, *, student: str | None = None, name: str | None = None, limit: int | None = None
    ) -> Pages[wire.Curriculum]:
        """All curricula, those of a student, or the one of a name; `limit` a page."""
        return Pages("/v1/curricula", wire.Curriculum, {"student": student, "name": name, "limit": limit})

    @route
    def update_curriculum(self, curriculum_id: str, body: wire.CurriculumUpdate) -> Call[wire.Curriculum]:
        """Change a running curriculum; the next draw follows."""
        return patch(at("/v1/curricula/{}", curriculum_id), body, wire.Curriculum)
