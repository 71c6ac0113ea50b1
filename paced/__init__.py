"""PACED: train on what the student is about to learn. The client that trainers install."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paced.client import AsyncClient, Client
    from paced.errors import ApiError, PacedError, Unreachable

__all__ = ["ApiError", "AsyncClient", "Client", "PacedError", "Unreachable"]
__version__ = "0.1.0"

_PLACES = {
    "ApiError": "paced.errors",
    "AsyncClient": "paced.client",
    "Client": "paced.client",
    "PacedError": "paced.errors",
    "Unreachable": "paced.errors",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for: a script that only names the package does not pay for HTTP and models."""
    if name not in _PLACES:
        raise AttributeError(f"module 'paced' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PLACES[name]), name)
