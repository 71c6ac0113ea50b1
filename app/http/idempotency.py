"""Idempotency-Key: the same key with the same body replays, with another body it is refused."""

import hashlib
from dataclasses import dataclass
from typing import Annotated

from fastapi import Header
from pydantic import BaseModel

from app.errors import Invalid

KeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key", min_length=1, max_length=200, description="The same key and body are answered alike"
    ),
]


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A creating request: its key (or None) and the hash of its body."""

    key: str | None
    request_hash: str

    def check(self, stored_hash: str) -> None:
        """Refuse a known key that comes with another body."""
        if stored_hash != self.request_hash:
            raise Invalid(
                f"Idempotency-Key {self.key!r} was used for another body; take a new key for a new request",
                code="idempotency_key_reused",
            )


def idempotency(key: str | None, body: BaseModel, *context: str) -> Idempotency:
    """The identity of a request; `context` holds what the path adds to the body.

    Without the defaults, so that a later version with more fields knows the requests of an earlier one.
    """
    text = "\x00".join([*context, body.model_dump_json(exclude_defaults=True)])
    return Idempotency(key, hashlib.sha256(text.encode()).hexdigest())
