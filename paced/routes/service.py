"""Beside the flow: grading on request, alarms, API keys, health."""

from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter

from paced import wire
from paced.calls import Call, Pages, at, get, listed, nothing, post, present, route


class ServiceRoutes:
    """Calls on the service itself."""

    @route
    def grade(self, answers: Sequence[wire.AnswerToGrade]) -> Call[wire.Grades]:
        """Verdicts on answers that the caller brings, in order; nothing is stored."""
        return post("/v1/grade", wire.GradeRequest(answers=list(answers)), wire.Grades)

    @route
    def grader_stats(self) -> Call[wire.GraderStats]:
        """What the service's graders have done since it started."""
        return get("/v1/grade/stats", wire.GraderStats)

    @route
    def alarms(self, measurement_id: str | None = None) -> Call[list[wire.Alarm]]:
        """What needs a person now, serious ones first: of one measurement, or of all."""
        read = TypeAdapter(list[wire.Alarm]).validate_json
        return Call("GET", "/v1/alarms", read, present({"measurement_id": measurement_id}))

    @route
    def create_key(self, body: wire.KeyCreate) -> Call[wire.KeyCreated]:
        """Make an API key; its secret is shown this once."""
        return post("/v1/keys", body, wire.KeyCreated)

    @listed
    def keys(self) -> Pages[wire.Key]:
        """All API keys, without secrets."""
        return Pages("/v1/keys", wire.Key)

    @route
    def revoke_key(self, key_id: str) -> Call[None]:
        """Make an API key useless."""
        return Call("DELETE", at("/v1/keys/{}", key_id), nothing)

    @route
    def create_sign_in_link(self) -> Call[wire.SignInLink]:
        """A link that signs a browser in once, with what this key may do."""
        return Call("POST", "/v1/sign-in-links", wire.SignInLink.model_validate_json)

    @route
    def ready(self) -> Call[dict[str, Any]]:
        """What the service says of itself (version, database, schema)."""
        return Call("GET", "/readyz", TypeAdapter(dict[str, Any]).validate_json)
