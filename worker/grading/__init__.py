"""Find the answer in a text and judge it: `grade` in this process, `GraderPool` in processes with a deadline.

Raise GRADER_VERSION whenever a verdict changes for some answer: pass rates under two versions never mix.
"""

from .base import Grade
from .judge import grade
from .pool import GraderPool
from .stats import PoolStats, SlowAnswer

__all__ = ["GRADER_VERSION", "Grade", "GraderPool", "PoolStats", "SlowAnswer", "grade"]

GRADER_VERSION = "2"
