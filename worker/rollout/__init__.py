"""Rollouts: problems leased from the service, answered by a student, graded, reported."""

from worker.rollout.engine import Answer, Engine, EngineDown, EngineFailure, EngineOptions, Sampling, make_engine

__all__ = ["Answer", "Engine", "EngineDown", "EngineFailure", "EngineOptions", "Sampling", "make_engine"]
