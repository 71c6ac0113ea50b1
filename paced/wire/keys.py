"""API keys and what they allow."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from .base import Name, Request, Resource, example


class Scope(StrEnum):
    """What a key may do; admin may do everything."""

    READ = "read"
    IMPORT = "import"
    ROLLOUT = "rollout"
    TRAIN = "train"
    ADMIN = "admin"


class KeyCreate(Request):
    """A new API key."""

    model_config = example(name="trainer-1", scopes=["read", "train"])

    name: Name
    scopes: Annotated[list[Scope], Field(min_length=1)]


class Key(Resource):
    """An API key without its secret."""

    model_config = example(
        key_id="key_6nTz", name="trainer-1", scopes=["read", "train"], created_at="2026-11-25T08:00:00Z"
    )

    key_id: str
    name: str
    scopes: list[Scope]
    created_at: datetime


class KeyCreated(Key):
    """A new API key with its secret, shown this once."""

    model_config = example(
        key_id="key_6nTz",
        name="trainer-1",
        scopes=["read", "train"],
        created_at="2026-11-25T08:00:00Z",
        secret="paced.key_6nTz.0123456789abcdef0123456789abcdef",
    )

    secret: str


class SignInLink(Resource):
    """Where a browser signs in once, until `expires_at`; `path` is on this service."""

    model_config = example(path="/sign-in/0123456789abcdef0123456789abcdef", expires_at="2026-11-25T09:00:00Z")

    path: str
    expires_at: datetime
