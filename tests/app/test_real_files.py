"""Every file of the folder of real problem sets, with what an import makes of it."""

from pathlib import Path

import pytest

from paced import Client
from tests.app.test_import_rules import counts, make_set

# rows, imported, twins, refused, and flags
REAL: dict[str, tuple[int, int, int, int, dict[str, int]]] = {
    "cmath_zh.jsonl": (500, 500, 0, 0, {}),
    "college_math_ccby.jsonl": (1060, 1038, 22, 0, {"conflicting_answers": 10, "missing_figure": 1}),
    "dapo_math_sample.jsonl": (1194, 1143, 51, 0, {"conflicting_answers": 15, "missing_figure": 16}),
    "deepscaler_difficulty.jsonl": (600, 591, 9, 0, {"missing_figure": 6, "multi_part": 1}),
    "deepscaler_sub.jsonl": (1209, 1207, 2, 0, {"missing_figure": 18, "multi_part": 1, "no_answer": 1}),
    "gsm8k_test.jsonl": (1319, 1319, 0, 0, {}),
    "gsm8k_train.jsonl": (4000, 4000, 0, 0, {}),
    "olympiadbench_oe_to_maths_en.jsonl": (540, 540, 0, 0, {"missing_figure": 1}),
    "svamp.jsonl": (500, 500, 0, 0, {}),
    "formats/hf_gsm8k_test.parquet": (1319, 1319, 0, 0, {}),
    "formats/messages_answer_areal.jsonl": (10, 10, 0, 0, {}),
    "formats/nemo_openmathinstruct2_sft.jsonl": (100, 100, 0, 0, {"missing_figure": 1}),
    "formats/roll_deepmath.jsonl": (400, 400, 0, 0, {}),
    "formats/verl_dapo_mini16.jsonl": (16, 16, 0, 0, {}),
    "formats/verl_dapo_mini16.parquet": (16, 16, 0, 0, {}),
    "formats/verl_debug_arith8.jsonl": (8, 8, 0, 0, {}),
    "formats/verl_deepscaler_sub.parquet": (
        1209,
        1207,
        2,
        0,
        {"missing_figure": 18, "multi_part": 1, "no_answer": 1},
    ),
    "formats/verl_gsm8k_test_250.jsonl": (250, 250, 0, 0, {}),
    "formats/verl_oneshot_pi1_r128.parquet": (128, 1, 127, 0, {}),
    "formats/derived/gsm8k_100.csv": (100, 100, 0, 0, {}),
    "formats/derived/gsm8k_50.jsonl.gz": (50, 50, 0, 0, {}),
    "formats/derived/gsm8k_20_utf8bom_crlf.jsonl": (20, 20, 0, 0, {}),
    "formats/derived/messages_sft.jsonl": (100, 100, 0, 0, {}),
    "formats/derived/openrlhf_context_messages.jsonl": (100, 100, 0, 0, {}),
    "formats/derived/openrlhf_input_label.jsonl": (200, 200, 0, 0, {}),
    "formats/derived/slime_prompt_label.jsonl": (16, 16, 0, 0, {}),
    "formats/derived/trl_grpo_prompt_only_solution.jsonl": (100, 100, 0, 0, {}),
    "formats/derived/trl_prompt_completion.jsonl": (200, 200, 0, 0, {}),
    "formats/derived/trl_prompt_completion_chat.jsonl": (200, 200, 0, 0, {}),
    "formats/derived/verl_gsm8k_list_ground_truth.jsonl": (50, 50, 0, 0, {}),
}


@pytest.mark.parametrize("name", REAL)
def test_every_real_file_imports_whole(lite_client: Client, data_folder: Path, name: str) -> None:
    problem_set, file = make_set(lite_client), data_folder / name
    rehearsed = lite_client.import_problems(problem_set, file, dry_run=True)
    report = lite_client.import_problems(problem_set, file)
    n_rows, n_imported, n_twins, n_refused, flags = REAL[name]
    assert (report.n_rows, report.n_imported, report.n_twins, report.n_refused) == REAL[name][:4]
    assert (report.flags, report.warnings) == (flags, [])
    assert counts(rehearsed) == counts(report)
    assert rehearsed.flags == flags
    found = lite_client.problem_set(problem_set)
    assert (found.n_problems, found.n_flagged, found.n_rows) == (n_imported, sum(flags.values()), n_rows - n_refused)
    again = lite_client.import_problems(problem_set, file)
    assert counts(again) == (n_rows, 0, n_rows - n_refused, 0, n_refused)
    assert n_twins == n_rows - n_refused - n_imported
    assert lite_client.problem_set(problem_set) == found


def test_no_file_of_the_folder_is_forgotten(data_folder: Path) -> None:
    kept = {"README.md", "grader_pairs.jsonl"}
    files = {str(path.relative_to(data_folder)) for path in data_folder.rglob("*") if path.is_file()}
    assert {name for name in files if Path(name).name not in kept} == set(REAL)
