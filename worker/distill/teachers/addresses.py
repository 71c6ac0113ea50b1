"""Where teachers are, as settings name them."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

SELF = "self"
DEFAULT_TAG = "default"
SERVED_TOP_K = 20  # what vLLM allows unless it is told otherwise


class TeacherAt(BaseModel):
    """Where one teacher is: in this process ('self' or a folder), or behind an OpenAI-compatible URL."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at: Annotated[str, Field(min_length=1)]
    model: str | None = None
    key_env: str | None = None

    @property
    def is_self(self) -> bool:
        """Whether it is the frozen first student, shown the answer."""
        return self.at == SELF

    @property
    def is_served(self) -> bool:
        """Whether it answers over HTTP."""
        return self.at.startswith(("http://", "https://"))

    @property
    def default_top_k(self) -> int | None:
        """How many tokens of each place are asked for; None for the whole distribution."""
        return SERVED_TOP_K if self.is_served else None

    def identity(self) -> dict[str, Any]:
        """What tells it from another teacher, as JSON."""
        is_folder = not self.is_self and not self.is_served
        return {"at": str(Path(self.at).resolve()) if is_folder else self.at, "model": self.model}
