"""The code grader: a Python program in the answer, run in a sandbox against the tests of the reference answer.

The reference is JSON, `{"inputs": [...], "outputs": [...]}`, for programs that read standard input and print; or lines
of Python that assert, for definitions. A program passes when it passes every test. Assertions run in the interpreter of
the answer, which can therefore cheat on purpose; programs with inputs cannot see what is expected.
"""

import json
import re
import secrets

from paced.wire.grading import GradingPolicy

from . import sandbox
from .base import DEFAULT_POLICY, Judged, UngradableError

BLOCK = re.compile(r"^[ \t]*```(?:python|py|python3)?[ \t]*\n(.*?)^[ \t]*```", re.DOTALL | re.IGNORECASE | re.MULTILINE)
MAX_PROGRAM = 20_000
MAX_SHOWN = 80


def judge(text: str, answer: str, policy: GradingPolicy = DEFAULT_POLICY) -> Judged:  # noqa: ARG001
    """Pass where the last code block of the text passes all tests of the reference.

    Raises UngradableError where the reference holds no tests, GraderMissingError where no sandbox runs.
    """
    tests = _read(answer)
    blocks = BLOCK.findall(text)
    if not blocks:
        sandbox.run("")  # a refusal comes first: an answer is not to fail where none is judged
        return Judged(False, None, "no Python code block")
    program = blocks[-1][:MAX_PROGRAM]
    problem = _assert_problem(program, tests) if isinstance(tests, str) else _output_problem(program, tests)
    return Judged(problem is None, program, problem)


def _read(answer: str) -> str | list[tuple[str, str]]:
    """Return assertions, or pairs of input and output."""
    try:
        tests = json.loads(answer)
    except ValueError:
        if re.search(r"^\s*assert\b", answer, re.MULTILINE):
            return answer
        raise UngradableError("the reference answer holds no assertions, and no JSON with inputs and outputs") from None
    try:
        pairs = [(str(given), str(wanted)) for given, wanted in zip(tests["inputs"], tests["outputs"], strict=True)]
    except (TypeError, KeyError, ValueError) as error:
        raise UngradableError(f"the reference answer needs as many inputs as outputs ({error})") from None
    if not pairs:
        raise UngradableError("the reference answer holds no tests")
    return pairs


def _output_problem(program: str, pairs: list[tuple[str, str]]) -> str | None:
    for number, (given, wanted) in enumerate(pairs, 1):
        outcome = sandbox.run(program, given)
        if problem := _end(outcome):
            return f"test {number}: {problem}"
        if _lines(outcome.output) != _lines(wanted):
            return f"test {number}: printed {outcome.output[:MAX_SHOWN]!r}, not {wanted[:MAX_SHOWN]!r}"
    return None


def _assert_problem(program: str, tests: str) -> str | None:
    """Run the program, then the tests; a word that only the end prints tells that the end was reached."""
    word = secrets.token_hex(16)
    source = f"{program}\n\n{tests}\n\nprint('\\n' + input())\n"
    outcome = sandbox.run(source, word + "\n")
    if problem := _end(outcome):
        return problem
    return None if outcome.output.endswith(f"\n{word}\n") else "ended before its tests did"


def _end(outcome: sandbox.Outcome) -> str | None:
    if outcome.exit_code is None:
        return f"still ran after {sandbox.WALL_S:g} s"
    lines = outcome.errors.strip().splitlines()
    return f"ended with {outcome.exit_code}: {lines[-1] if lines else 'no message'}" if outcome.exit_code else None


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]
