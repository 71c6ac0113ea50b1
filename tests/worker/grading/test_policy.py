"""Where conventions differ the policy decides, in this process and in the pool's."""

import asyncio

import pytest
from pydantic import ValidationError

from paced.wire.grading import GradingPolicy, Verdict
from worker.grading import GraderPool, grade

CASES = [  # text, reference, policies under which it passes, policies under which it fails
    ("10%", "0.1", [{}, {"percent": "fraction"}], [{"percent": "number"}]),
    ("10%", "10", [{}, {"percent": "number"}], [{"percent": "fraction"}]),
    (r"\boxed{\frac{1}{2}\%}", r"\frac{1}{200}", [{}, {"percent": "fraction"}], [{"percent": "number"}]),
    ("10%", r"10\%", [{"percent": each} for each in ("number", "fraction", "either")], []),
    ("10", "10 percent", [{}, {"percent": "number"}], [{"percent": "fraction"}]),
    ("2, 1", "1, 2", [{}, {"order": "any"}], [{"order": "kept"}]),
    (r"\{2, 1\}", r"\{1, 2\}", [{}, {"order": "kept"}], []),
    ("(2, 1)", "(1, 2)", [], [{}, {"order": "any"}, {"brackets": "ignored"}]),
    ("[1, 2]", "(1, 2)", [{"brackets": "ignored"}], [{}, {"brackets": "kept"}]),
    (r"\{1, 2\}", "(1, 2)", [{"brackets": "ignored"}], [{}]),
    ("[0, 1)", "(0, 1)", [], [{}, {"brackets": "ignored"}]),
    ("5", "5 cm", [{}, {"units": "ignored"}], [{"units": "required"}]),
    (r"5\text{ cm}", "5 cm", [{}, {"units": "required"}], []),
    ("50 mm", "5 cm", [{}, {"units": "required"}], []),
    ("5 apples", "5 pears", [{}], [{"units": "required"}]),
    ("5 kg", "5 cm", [], [{}, {"units": "required"}]),
    ("5 cm", "5", [{}, {"units": "required"}], []),
    ("3,5", "3.5", [{}, {"comma": "either"}], [{"comma": "list"}]),
    (r"180^\circ", r"\pi", [{"degrees": "radians"}], [{}]),
    (r"180^\circ", "180", [{}], [{"degrees": "radians"}]),
    ("0.33", r"\frac{1}{3}", [{"rel_tolerance": 0.02}, {"abs_tolerance": 0.01}], [{}]),
    ("0.6054", r"\cos^{10}(\frac{\pi}{10})", [{"abs_tolerance": 1e-4}], [{}]),
    ("101", "100", [{"abs_tolerance": 1}], [{}, {"rel_tolerance": 0.1}]),
    ("1.0000001", "1", [{}], [{"rel_tolerance": 0}]),
]


@pytest.mark.parametrize(("text", "answer", "passing", "failing"), CASES)
def test_the_policy_decides(
    text: str, answer: str, passing: list[dict[str, str]], failing: list[dict[str, str]]
) -> None:
    for fields in passing:
        assert grade(text, answer, "math", GradingPolicy.model_validate(fields)).verdict is Verdict.PASS, fields
    for fields in failing:
        assert grade(text, answer, "math", GradingPolicy.model_validate(fields)).verdict is Verdict.FAIL, fields


@pytest.mark.parametrize(
    ("text", "answer", "policy", "is_right"),
    [
        ("10%", "0.1", {"percent": "number"}, False),
        ("so it is 10 percent", "0.1", {"percent": "fraction"}, True),
        ("so it is 10 percent", "10", {"percent": "fraction"}, False),
        ("5", "5 cm", {"units": "required"}, False),
        ("180 degrees", "3.14159265358979", {"degrees": "radians"}, True),
        ("0.33", "1/3", {"rel_tolerance": 0.02}, True),
        ("3,5", "3.5", {"comma": "list"}, False),
    ],
)
def test_the_numeric_grader_has_the_same_policy(text: str, answer: str, policy: dict[str, str], is_right: bool) -> None:
    verdict = grade(text, answer, "numeric", GradingPolicy.model_validate(policy)).verdict
    assert (verdict is Verdict.PASS) is is_right


async def test_the_pool_hands_the_policy_on() -> None:
    strict = GradingPolicy(percent="number", order="kept", units="required")
    pairs = [("10%", "0.1"), ("2, 1", "1, 2"), ("5", "5 cm"), ("5 cm", "5 cm")]
    async with GraderPool(1) as pool:
        default = await asyncio.gather(*(pool.grade(*pair, "math") for pair in pairs))
        kept = await asyncio.gather(*(pool.grade(*pair, "math", policy=strict) for pair in pairs))
    assert [found.verdict for found in default] == [Verdict.PASS] * 4
    assert [found.verdict for found in kept] == [Verdict.FAIL] * 3 + [Verdict.PASS]


def test_every_field_is_documented_and_has_a_default() -> None:
    assert GradingPolicy().model_dump().keys() == GradingPolicy.model_fields.keys()
    assert all(field.description for field in GradingPolicy.model_fields.values())
    with pytest.raises(ValidationError):
        GradingPolicy.model_validate({"percents": "number"})
