"""PACED: train on what the student is about to learn. The client that trainers install."""

from paced.client import Client
from paced.errors import ApiError, PacedError, Unreachable

__all__ = ["ApiError", "Client", "PacedError", "Unreachable"]
__version__ = "0.1.0"
