import json

import pytest

from app.flow.problems.reading.answers import last_boxed
from app.flow.problems.reading.drafts import ProblemDraft, ReadOptions, RowRefused
from app.flow.problems.reading.fingerprint import fingerprint
from app.flow.problems.reading.shapes import Shaper

USER = [{"role": "user", "content": "Compute 2 + 2."}]
SYSTEM = [{"role": "system", "content": "Reason."}, *USER]
TOLD = [*USER, {"role": "assistant", "content": "Two and two\nare $\\boxed{4}$."}]
GSM8K = "She has 2000 + 50.\n#### 2,050"
BOXED = "We add.\nSo \\boxed{\\frac{1}{2}}."


def shape(row, **options):
    shaper = Shaper("rows.jsonl", ReadOptions(**options))
    draft = shaper.draft(3, row)
    assert isinstance(draft, ProblemDraft), draft
    return shaper.shape, draft


def refuse(row, **options):
    refused = Shaper("rows.jsonl", ReadOptions(**options)).draft(3, row)
    assert isinstance(refused, RowRefused), refused
    assert refused.line == 3
    return refused


@pytest.mark.parametrize(
    ("name", "row", "prompt", "answer", "solution"),
    [
        ("plain", {"prompt": "2 + 2?", "answer": "4"}, "2 + 2?", "4", None),
        ("plain", {"Problem": "2 + 2?", "Answer": 4}, "2 + 2?", "4", None),
        ("plain", {"query": "2 + 2?", "target": 4.0, "solution": "Count."}, "2 + 2?", "4", "Count."),
        ("gsm8k", {"question": "2 + 2?", "answer": GSM8K}, "2 + 2?", "2050", GSM8K),
        ("math", {"problem": "1/2?", "level": "Level 1", "solution": BOXED}, "1/2?", "\\frac{1}{2}", BOXED),
        ("verl", {"prompt": USER, "reward_model": {"ground_truth": "4", "style": "rule"}}, USER, "4", None),
        ("verl", {"prompt": USER, "reward_model": {"ground_truth": ["4"]}}, USER, "4", None),
        ("verl", {"prompt": json.dumps(USER), "reward_model": '{"ground_truth": 4}'}, USER, "4", None),
        (
            "verl",
            {"prompt": USER, "reward_model": {"ground_truth": "2050"}, "extra_info": {"answer": GSM8K}},
            USER,
            "2050",
            GSM8K,
        ),
        (
            "verl",
            {"prompt": USER, "reward_model": {"ground_truth": "4"}, "extra_info": {"answer": "Answer: 4"}},
            USER,
            "4",
            None,
        ),
        ("trl_prompt_only", {"prompt": SYSTEM, "solution": BOXED}, SYSTEM, "\\frac{1}{2}", BOXED),
        ("trl_prompt_completion", {"prompt": "2?", "completion": " " + GSM8K}, "2?", "2050", GSM8K),
        ("trl_prompt_completion", {"prompt": USER, "completion": TOLD[1:]}, USER, "4", TOLD[1]["content"]),
        ("openrlhf", {"input": "2 + 2?", "label": "4"}, "2 + 2?", "4", None),
        ("openrlhf", {"context": "2 + 2?", "context_messages": SYSTEM, "answer": "4"}, SYSTEM, "4", None),
        ("slime", {"prompt": USER, "label": "4"}, USER, "4", None),
        ("roll", {"prompt": "x", "messages": json.dumps(SYSTEM), "ground_truth": "Yes"}, SYSTEM, "Yes", None),
        ("messages", {"messages": USER, "answer": "4"}, USER, "4", None),
        ("messages", {"messages": TOLD}, USER, "4", TOLD[1]["content"]),
        ("messages", {"messages": TOLD, "answer": "four"}, USER, "four", TOLD[1]["content"]),
        (
            "sharegpt",
            {"conversations": [{"from": "human", "value": "2?"}, {"from": "gpt", "value": "2"}]},
            [{"role": "user", "content": "2?"}],
            "2",
            None,
        ),
        ("nemo", {"problem": "2?", "generated_solution": BOXED, "expected_answer": "1/2"}, "2?", "1/2", BOXED),
        ("svamp", {"Body": "He has 2 ", "Question": "How many?", "Answer": 2.0}, "He has 2. How many?", "2", None),
        (
            "olympiadbench",
            {"context": None, "question": "Find x, y", "solution": ["S."], "final_answer": ["$1$", "2"]},
            "Find x, y",
            "$1$, 2",
            "S.",
        ),
        ("alpaca", {"instruction": "Add.", "input": "2, 2", "output": "4"}, "Add.\n\n2, 2", "4", None),
    ],
)
def test_every_shape_gives_prompt_answer_and_solution(name, row, prompt, answer, solution):
    found, draft = shape(row)
    assert found == name
    assert draft == ProblemDraft(
        prompt=prompt,
        answer=answer,
        grader=None,
        tags=draft.tags,
        source="rows.jsonl",
        solution=solution,
        fingerprint=fingerprint(prompt),
        line=3,
    )


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        (27.0, "27"),
        (27.5, "27.5"),
        (-3, "-3"),
        (1e15, "1000000000000000"),
        (True, "True"),
        ("027", "027"),
        (" $x$ ", "$x$"),
        (["1", None, 2.0], "1, 2"),
        ("\\boxed{5}", "5"),
        ("#### 1,234.5", "1234.5"),
        ("a\n#### 1, 2", "1, 2"),
        ("## A\n#### B\ntext", "## A\n#### B\ntext"),
    ],
)
def test_answers_become_the_shortest_text(value, answer):
    assert shape({"prompt": "p", "answer": value})[1].answer == answer


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("\\boxed{1} and \\boxed{\\{2\\}}", "\\{2\\}"),
        ("$\\boxed 7$.", "7"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{open", None),
        ("no box", None),
    ],
)
def test_last_boxed(text, found):
    assert last_boxed(text) == found


@pytest.mark.parametrize(
    ("row", "code", "said"),
    [
        ({"text": "2 + 2?", "answer": "4"}, "missing_prompt", "the row has text, answer"),
        ({"prompt": "2 + 2?", "text": "4"}, "missing_answer", "the row has prompt, text"),
        ({"prompt": "", "answer": "4"}, "empty_prompt", "'prompt' is empty"),
        ({"prompt": None, "answer": "4"}, "empty_prompt", "'prompt' is empty"),
        ({"prompt": 5, "answer": "4"}, "bad_prompt", "int"),
        ({"prompt": [], "answer": "4"}, "empty_prompt", "no messages"),
        ({"prompt": "2 + 2?", "answer": {"value": 4}}, "bad_answer", "an object"),
        ({"prompt": "2 + 2?", "answer": 1.5e30}, "bad_answer", "digits are lost"),
        ({"prompt": USER, "reward_model": {"style": "rule"}}, "missing_answer", "'reward_model.ground_truth'"),
        ({"messages": SYSTEM}, "missing_answer", "messages"),
        ({"messages": "[{", "answer": "4"}, "bad_messages", "not a JSON list"),
        ({"messages": ["hello"], "answer": "4"}, "bad_messages", "message 1 is str"),
        ({"messages": [{"role": "wizard", "content": ""}], "answer": "4"}, "bad_messages", "'wizard'"),
        ({"messages": SYSTEM[:1], "answer": "4"}, "bad_messages", "no user turn"),
        ({"messages": [{"role": "user", "content": 4}], "answer": "4"}, "bad_messages", "int"),
        ({"messages": [{"role": "user", "content": " "}], "answer": "4"}, "empty_prompt", "empty"),
        ({"prompt": "a\0b", "answer": "4"}, "nul_character", "U+0000"),
        (["2 + 2?", "4"], "not_an_object", "a list"),
        ("2 + 2?", "not_an_object", "text"),
    ],
)
def test_a_refusal_says_what_was_found(row, code, said):
    refused = refuse(row)
    assert refused.code == code
    assert said in refused.reason


@pytest.mark.parametrize(
    ("row", "solution"),
    [
        ({"prompt": "2 + 2?", "answer": " \n"}, None),
        ({"prompt": "2 + 2?", "answer": None}, None),
        ({"prompt": "2 + 2?", "answer": []}, None),
        ({"prompt": "Prove it.", "solution": "First.\nThen."}, "First.\nThen."),
        ({"prompt": USER, "reward_model": {"ground_truth": ""}}, None),
    ],
)
def test_a_row_without_an_answer_keeps_what_it_has(row, solution):
    draft = shape(row)[1]
    assert (draft.answer, draft.solution) == ("", solution)


def test_rows_without_a_field_for_the_answer_are_drafts_if_asked():
    assert shape({"prompt": "2 + 2?"}, allow_no_answer=True)[1].answer == ""
    assert shape({"messages": SYSTEM}, allow_no_answer=True)[1].answer == ""
    assert refuse({"prompt": "2 + 2?"}, allow_no_answer=True, answer_field="key").code == "missing_answer"


def test_fields_that_the_user_names_win():
    row = {"prompt": "no", "ask": {"text": "2 + 2?"}, "gold": "no", "key": "4", "kind": "sum, easy", "tags": ["x"]}
    found, draft = shape(row, prompt_field="ask.text", answer_field="key", tags_field="kind", source="mine")
    assert (found, draft.prompt, draft.answer, draft.source) == ("custom", "2 + 2?", "4", "mine")
    assert draft.tags == ("sum, easy",)
    assert refuse(row, prompt_field="ask.words").code == "missing_prompt"
    assert "no field 'nothing'" in refuse(row, answer_field="nothing").reason


def test_tags_are_short_distinct_labels():
    row = {"prompt": "p", "answer": "1", "type": "Algebra", "subject": "Algebra", "level": 5, "topic": "x" * 65}
    assert shape({**row, "tags": " a, b,,a"})[1].tags == ("a", "b", "Algebra", "level 5")


def test_a_known_grader_is_kept_and_another_is_left_out():
    row = {"prompt": "p", "answer": "1"}
    assert shape({**row, "grader": "numeric"})[1].grader == "numeric"
    assert shape({**row, "grader": "user:mine"})[1].grader == "user:mine"
    assert shape({**row, "grader": "magic"})[1].grader is None


def test_content_in_text_parts_is_text():
    parts = [{"type": "text", "text": "2 +"}, {"type": "text", "text": "2?"}]
    draft = shape({"messages": [{"role": "user", "content": parts, "name": None}], "answer": "4"})[1]
    assert draft.prompt == [{"role": "user", "content": "2 +\n2?"}]


def test_the_shape_of_most_rows_is_reported():
    shaper = Shaper("rows.jsonl", ReadOptions())
    assert shaper.shape == "unknown"
    for row in ({"prompt": "p", "answer": "1"}, {"prompt": USER, "label": "4"}, {"prompt": USER, "label": "4"}):
        assert isinstance(shaper.draft(1, row), ProblemDraft)
    assert shaper.shape == "slime"
