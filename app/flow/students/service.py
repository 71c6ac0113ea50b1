"""Students, their checkpoints, and the sampling profiles under which they answer."""

import hashlib

from app.clock import Clock
from app.errors import Conflict
from app.flow.students.store import StudentStore
from app.http.idempotency import Idempotency
from paced.wire import Checkpoint, CheckpointCreate, Profile, ProfileCreate, Student, StudentCreate


class StudentService:
    """Stage 2 of the flow."""

    def __init__(self, store: StudentStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def create(self, body: StudentCreate) -> Student:
        """Create a student; the same one again is returned, another of that name refused."""
        wanted = Student(**body.model_dump(), latest_checkpoint=None, created_at=self._clock())
        stored = await self._store.create(wanted)
        if stored.description != wanted.description:
            detail = f"there is a student {body.name!r} with another description; take another name"
            raise Conflict(detail, code="already_exists")
        return stored

    async def get(self, name: str) -> Student:
        """One student."""
        return await self._store.get(name)

    async def page(self, after: str | None, limit: int) -> list[Student]:
        """Students by name."""
        return await self._store.page(after, limit)

    async def register(self, name: str, body: CheckpointCreate, identity: Idempotency) -> Checkpoint:
        """Register new weights under the next index."""
        return await self._store.add_checkpoint(name, body, identity, self._clock())

    async def checkpoints(self, name: str, after: int | None, limit: int) -> list[Checkpoint]:
        """Checkpoints of a student, oldest first."""
        return await self._store.checkpoints(name, -1 if after is None else after, limit)

    async def create_profile(self, body: ProfileCreate) -> Profile:
        """Store a profile under the hash of its content."""
        return await self._store.create_profile(
            Profile(profile_id=profile_id(body), **body.model_dump(), created_at=self._clock())
        )

    async def profile(self, profile_id: str) -> Profile:
        """One profile."""
        return await self._store.profile(profile_id)

    async def profiles(self, after: str | None, limit: int) -> list[Profile]:
        """Profiles by id."""
        return await self._store.profiles(after, limit)


def profile_id(body: ProfileCreate) -> str:
    """The id of a sampling profile: a hash of everything that can change a pass rate."""
    return f"sp_{hashlib.sha256(body.model_dump_json().encode()).hexdigest()[:16]}"
