"""Graders of other packages: `user:NAME` is the entry point NAME of the group paced.graders.

Such a function takes (text, answer, policy) and returns whether the answer is right, or a tuple of that and the part
of the text it judged. It runs in a grading process, under its deadline and memory bound.
"""

import functools
from importlib.metadata import entry_points

from paced.wire.grading import GradingPolicy

from .base import Grader, GraderMissingError, Judged

GROUP = "paced.graders"


@functools.cache
def load_installed(name: str) -> Grader:
    """Return the grader that an installed package declares.

    Raises GraderMissingError where none does, where several do, or where its import fails.
    """
    short = name.removeprefix("user:")
    found = list(entry_points(group=GROUP, name=short))
    if not found:
        raise GraderMissingError(
            f"the grader {name} is missing: no package installed here declares the entry point {short!r} in the group "
            f"{GROUP}; install the package that does wherever answers are graded, and start again"
        )
    if len(found) > 1:
        owners = ", ".join(sorted(point.dist.name if point.dist else point.value for point in found))
        raise GraderMissingError(f"the grader {name} is ambiguous: {owners} all declare it; keep one of them")
    try:
        function = found[0].load()
    except (ImportError, AttributeError) as error:
        owner = found[0].dist.name if found[0].dist else "a package"
        raise GraderMissingError(f"the grader {name} of {owner} ({found[0].value}) does not load: {error}") from None

    def judge(text: str, answer: str, policy: GradingPolicy) -> Judged:
        return _judged(name, function(text, answer, policy))

    return judge


def _judged(name: str, result: object) -> Judged:
    match result:
        case bool():
            return Judged(result, None)
        case (bool() as is_right, str() | None as extracted, *rest) if len(rest) <= 1:
            detail = rest[0] if rest else None
            return Judged(is_right, extracted, detail if detail is None else str(detail))
    raise TypeError(f"{name} returned {result!r:.100}: a grader returns True or False, or (is_right, extracted)")
