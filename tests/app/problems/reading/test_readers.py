import gzip
import json
import os
import random
import tracemalloc
from pathlib import Path

import polars as pl
import pytest
import zstandard

from app.flow.problems.reading.drafts import MIB, ProblemDraft, ReadOptions, RowRefused, UnreadableFile
from app.flow.problems.reading.readers import read_problems

DATA = os.environ.get("PACED_TEST_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="PACED_TEST_DATA names no folder of real problem sets")
GOOD = {"question": "2 + 2?", "answer": "4"}


@pytest.fixture
def read(tmp_path):
    """Writes bytes or rows to a file and reads it: the stream, its drafts, its refusals."""

    def write_and_read(content, name="rows.jsonl", **options):
        path = tmp_path / "upload"
        path.write_bytes(content if isinstance(content, bytes) else jsonl(content))
        return collect(path, name, **options)

    return write_and_read


def jsonl(rows):
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def collect(path, name, **options):
    stream = read_problems(path, name, ReadOptions(**options))
    rows = list(stream)
    drafts = [row for row in rows if isinstance(row, ProblemDraft)]
    refused = [row for row in rows if isinstance(row, RowRefused)]
    assert len(drafts) + len(refused) == len(rows)
    return stream, drafts, refused


def broken_file():
    lines = [json.dumps({**GOOD, "question": f"{n} + 2?"}).encode() for n in range(1, 13)]
    lines[6] = b'{"question": "7 + 2?" "answer": "9"}'
    lines[7] = b'{"text": "8 + 2?", "answer": "10"}'
    lines[8] = b'{"question": "9 + 2?", "answer": ""}'
    lines[9] = b'{"question": "' + b"x" * (20 * MIB) + b'", "answer": "1"}'
    lines[10] = '{"question": "é + 2?", "answer": "1"}'.encode("latin-1")
    return b"\n".join(lines)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_broken_file_keeps_its_good_rows_and_names_the_bad_ones(read, pack):
    stream, drafts, refused = read(pack(broken_file()))
    assert [draft.line for draft in drafts] == [1, 2, 3, 4, 5, 6, 9, 12]
    assert [draft.line for draft in drafts if not draft.answer] == [9]
    assert [(row.line, row.code) for row in refused] == [
        (7, "bad_json"),
        (8, "missing_prompt"),
        (10, "line_too_long"),
        (11, "bad_encoding"),
    ]
    assert "column 23" in refused[0].reason
    assert "the row has text, answer" in refused[1].reason
    assert "16777216 bytes" in refused[2].reason
    assert "byte 0xE9 at byte offset 14" in refused[3].reason
    assert stream.format.startswith("jsonl")
    assert stream.shape == "plain"


def test_a_long_line_is_never_held(read, tmp_path):
    path = tmp_path / "long"
    with path.open("wb") as file:
        for _ in range(64):
            file.write(b"x" * MIB)
        file.write(b"\n" + jsonl([GOOD]))
    tracemalloc.start()
    _, drafts, refused = collect(path, "long.jsonl", max_line_bytes=MIB)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(row.line, row.code) for row in refused] == [(1, "line_too_long")]
    assert [draft.line for draft in drafts] == [2]
    assert peak < 8 * MIB


def test_the_limit_of_a_line_is_exact(read):
    line = json.dumps(GOOD).encode()
    for end in (b"\n", b"\r\n", b""):
        assert len(read(line + end, max_line_bytes=len(line))[1]) == 1
        assert read(line + end, max_line_bytes=len(line) - 1)[2][0].code == "line_too_long"


def test_bom_crlf_blank_lines_and_escapes(read):
    content = b'\xef\xbb\xbf{"question": "\\u00bd?", "answer": "1"}\r\n\r\n  \r\n' + jsonl([GOOD])
    _, drafts, refused = read(content)
    assert refused == []
    assert [(draft.line, draft.prompt) for draft in drafts] == [(1, "½?"), (4, "2 + 2?")]


def test_values_that_are_no_objects_are_refused_one_by_one(read):
    _, drafts, refused = read(b'[1]\nnull\n"x"\n7\n' + jsonl([GOOD]) + b'{"a": NaN}\n')
    assert len(drafts) == 1
    assert [(row.line, row.code) for row in refused] == [
        *((line, "not_an_object") for line in (1, 2, 3, 4)),
        (6, "bad_json"),
    ]


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress], ids=["gzip", "zstandard"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.99])
def test_a_truncated_packed_file_keeps_the_rows_before_the_damage(read, pack, kept):
    rng = random.Random(7)
    whole = pack(jsonl({**GOOD, "question": rng.randbytes(1000).hex()} for _ in range(2000)))
    _, drafts, refused = read(whole[: int(len(whole) * kept)], "rows.jsonl.gz")
    assert [(row.line, row.code) for row in refused] == [(len(drafts) + 1, "damaged_file")]
    assert [draft.line for draft in drafts] == list(range(1, len(drafts) + 1))
    assert len(drafts) > 2000 * (kept - 0.1)


def test_zstandard_in_several_frames(read):
    content = b"".join(zstandard.compress(jsonl([{**GOOD, "question": f"{n} + 2?"}] * 50)) for n in range(3))
    stream, drafts, refused = read(content, "rows.jsonl.zst")
    assert (stream.format, len(drafts), refused) == ("jsonl.zst", 150, [])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.json"])
def test_utf16_is_read_and_said(read, encoding, name):
    rows = [{"question": f"{n}² ≤ 求?", "answer": "√2"} for n in range(9000)]
    text = {
        "rows.jsonl": "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows),
        "rows.csv": "question,answer\r\n" + "\r\n".join(f"{row['question']},{row['answer']}" for row in rows),
        "rows.json": json.dumps(rows, ensure_ascii=False, indent=1),
    }[name]
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    stream, drafts, refused = read((mark + text).encode(encoding), name)
    assert (refused, stream.notes) == ([], ["the file is UTF-16 and was read as such"])
    assert [draft.prompt for draft in drafts] == [row["question"] for row in rows]
    assert {draft.answer for draft in drafts} == {"√2"}


def test_utf16_that_breaks_off_keeps_the_rows_before(read):
    _, drafts, refused = read(("\n".join([json.dumps(GOOD)] * 3) + "\n").encode("utf-16") + b"\x00")
    assert (len(drafts), [(row.line, row.code) for row in refused]) == (3, [(4, "damaged_file")])


@pytest.mark.parametrize("layout", [{}, {"indent": 2}, {"separators": (",", ":")}])
@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "upload"])
def test_a_json_array_in_any_layout(read, layout, name):
    rows = [{"question": f"{n} + 2?", "answer": 0.5 + n} for n in range(50)]
    stream, drafts, refused = read(b"\xef\xbb\xbf " + json.dumps(rows, **layout).encode(), name)
    assert (stream.format, refused) == ("json", [])
    assert [(draft.line, draft.answer) for draft in drafts] == [(n + 1, repr(0.5 + n)) for n in range(50)]


@pytest.mark.parametrize("layout", [{}, {"indent": 2}])
def test_rows_in_an_array_of_an_object(read, layout):
    rows = {"type": "text2text", "instances": [{"input": f"{n} + 2?", "output": str(n + 2)} for n in range(50)]}
    stream, drafts, refused = read(json.dumps(rows, **layout).encode(), "rows.json")
    assert (stream.format, stream.shape, refused) == ("json", "alpaca", [])
    assert [draft.answer for draft in drafts] == [str(n + 2) for n in range(50)]


def test_a_json_array_is_never_held(tmp_path):
    path = tmp_path / "long.json"
    row = json.dumps({**GOOD, "text": "x" * 10_000}).encode()
    path.write_bytes(b"[" + b",".join([row] * 4000) + b"]")
    tracemalloc.start()
    _, drafts, refused = collect(path, path.name)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(drafts), refused) == (4000, [])
    assert peak < 8 * MIB


def test_a_broken_json_array_keeps_the_elements_before(read):
    good = json.dumps(GOOD).encode()
    _, drafts, refused = read(b"[" + good + b",\n" + good + b",\n{'a': 1}]")
    assert (len(drafts), [(row.line, row.code) for row in refused]) == (2, [(3, "bad_json")])
    _, drafts, refused = read(b"[" + good + b', 7, {"question": "' + b"x" * MIB + b'"}]', max_line_bytes=1000)
    assert (len(drafts), [row.code for row in refused]) == (1, ["not_an_object", "line_too_long"])


@pytest.mark.parametrize("kind", ["arrow", "arrow_stream"])
@pytest.mark.parametrize("pack", [bytes, zstandard.compress], ids=["plain", "zstandard"])
def test_arrow_files_of_datasets(read, tmp_path, kind, pack):
    frame = pl.DataFrame({"question": [f"{n} + 2?" for n in range(5000)], "answer": range(5000), "x": [b"\xff"] * 5000})
    (frame.write_ipc if kind == "arrow" else frame.write_ipc_stream)(tmp_path / "rows")
    stream, drafts, refused = read(pack((tmp_path / "rows").read_bytes()), "data-00000-of-00001.arrow")
    assert (stream.format.removesuffix(".zst"), len(drafts), refused) == (kind, 5000, [])
    assert drafts[-1].answer == "4999"


def test_templates_map_any_row(read, tmp_path):
    rows = [{"stem": "Which?", "choices": ["a", "b"], "right": 1}, {"stem": "No choices"}]
    template = "{{ stem }}{% for choice in choices %}\n{{ 'AB'[loop.index0] }}) {{ choice }}{% endfor %}"
    options = {"prompt_template": template, "answer_template": "{{ 'AB'[right] }}"}
    stream, (draft,), (refusal,) = read(rows, **options)
    assert (stream.shape, draft.prompt, draft.answer) == ("custom", "Which?\nA) a\nB) b", "B")
    assert refusal.code == "bad_template"
    assert "'choices' is undefined; the row has stem" in refusal.reason
    pl.DataFrame(rows[:1]).write_parquet(tmp_path / "rows")
    assert read((tmp_path / "rows").read_bytes(), **options)[1][0].prompt == draft.prompt


@pytest.mark.parametrize("template", ["{{ open", "{{ 'a' * 9 }}", "{% for i in range(9) %}{% endfor %}"])
def test_a_template_that_cannot_be_used(read, template):
    with pytest.raises(UnreadableFile) as caught:
        read([GOOD], prompt_template=template)
    assert caught.value.code == "bad_template"


def test_a_template_does_not_leave_its_sandbox(read):
    _, drafts, refused = read([GOOD], prompt_template="{{ question.__class__.__mro__ }}")
    assert (drafts, [row.code for row in refused]) == ([], ["bad_template"])


def test_a_gzip_with_a_wrong_checksum_says_so(read):
    whole = bytearray(gzip.compress(jsonl([GOOD] * 3)))
    whole[-8] ^= 0xFF
    _, drafts, refused = read(bytes(whole))
    assert (len(drafts), [row.code for row in refused]) == (3, ["damaged_file"])


def test_csv_with_quoted_newlines_and_quotes(read):
    content = 'question,answer,level\r\n"2 ""plus"" 2,\nplease?",4,1\r\n\r\n3?,"a\n#### 1,000",\r\n'
    stream, drafts, refused = read(content.encode(), "rows.csv")
    assert (stream.format, stream.shape, refused) == ("csv", "plain", [])
    assert [(row.line, row.prompt, row.answer, row.tags) for row in drafts] == [
        (2, '2 "plus" 2,\nplease?', "4", ("1",)),
        (5, "3?", "1000", ()),
    ]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_csv_delimiter_is_that_of_the_header(read, delimiter):
    content = f"question{delimiter}answer\n2, 3?{delimiter}4\n"
    assert [draft.prompt for draft in read(content.encode(), "rows.tsv")[1]] == ["2, 3?"]


def test_bad_csv_rows_are_refused_and_reading_goes_on(read):
    rows = [b"question,answer", b"a?,1", b"b?,2,3", b"\xe9?,3", b'"x"y,4', b"", b"y" * 300 + b",1", b"z?,", b"e?,5"]
    _, drafts, refused = read(b"\n".join(rows), "rows.csv", max_line_bytes=200)
    assert [(draft.line, draft.answer) for draft in drafts] == [(2, "1"), (8, ""), (9, "5")]
    assert [(row.line, row.code) for row in refused] == [
        (3, "bad_csv"),
        (4, "bad_encoding"),
        (5, "bad_csv"),
        (7, "line_too_long"),
    ]


def test_a_quote_that_never_closes_is_one_refusal(read):
    _, drafts, refused = read(b'question,answer\na?,1\n"b?,2\nc?,3\n', "rows.csv")
    assert [draft.line for draft in drafts] == [2]
    assert [(row.line, row.code) for row in refused] == [(3, "bad_csv")]
    assert "never closed" in refused[0].reason


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_parquet_reads_more_rows_than_a_batch_and_leaves_other_columns(read, tmp_path, pack):
    n = 5000
    chats = [[{"role": "user", "content": f"{i} + 2?"}] for i in range(n)]
    frame = pl.DataFrame({"prompt": chats, "label": range(n), "image": [b"\xff"] * n})
    frame.write_parquet(tmp_path / "rows")
    stream, drafts, refused = read(pack((tmp_path / "rows").read_bytes()), "upload.bin")
    assert (stream.format.removesuffix(".gz"), stream.shape, refused) == ("parquet", "slime", [])
    assert [draft.line for draft in drafts] == list(range(1, n + 1))
    assert drafts[-1].prompt == chats[-1]
    assert drafts[-1].answer == str(n - 1)


def test_parquet_refusals_name_all_columns(read, tmp_path):
    pl.DataFrame({"text": ["a"], "image": [b"\xff"]}).write_parquet(tmp_path / "rows")
    _, drafts, refused = read((tmp_path / "rows").read_bytes(), "rows.parquet")
    assert (drafts, [row.code for row in refused]) == ([], ["missing_prompt"])
    assert "the row has text, image" in refused[0].reason


@pytest.mark.parametrize(
    ("content", "name", "code"),
    [
        (b"", "rows.jsonl", "empty_file"),
        (b"PAR1" + b"garbage" * 100, "rows.parquet", "bad_parquet"),
        (b"garbage", "rows.parquet", "bad_parquet"),
        (gzip.compress(b"PAR1" + b"garbage" * 100), "rows.parquet.gz", "bad_parquet"),
        (gzip.compress(b"PAR1" + b"garbage" * 100)[:-9], "rows.parquet.gz", "damaged_gzip"),
        (gzip.compress(b"x" * 100)[:12], "rows.jsonl.gz", "damaged_gzip"),
        (b"garbage", "rows.arrow", "bad_arrow"),
        (b"ARROW1" + b"garbage" * 100, "rows.arrow", "bad_arrow"),
        (b"\xff\xff\xff\xff" + b"garbage" * 100, "rows.arrow", "bad_arrow"),
        (zstandard.compress(b"x" * 100)[:9], "rows.jsonl.zst", "damaged_zstandard"),
        (b"PK\x03\x04....", "rows.zip", "unknown_format"),
        (b"\x89PNG", "rows", "unknown_format"),
        (b"question,question\n1,2\n", "rows.csv", "bad_header"),
        (b"qu\xe9stion,answer\n1,2\n", "rows.csv", "bad_encoding"),
        (b"x" * 200 + b"\n1,2\n", "rows.csv", "line_too_long"),
        (b'question,"answer\n1,2\n', "rows.csv", "bad_csv"),
    ],
)
def test_a_file_that_cannot_be_read_at_all(read, content, name, code):
    with pytest.raises(UnreadableFile) as caught:
        read(content, name, max_line_bytes=150)
    assert caught.value.code == code
    assert str(caught.value) == caught.value.reason
    assert len(caught.value.reason) > 20


@pytest.mark.parametrize("name", ["rows", "rows.txt", "rows.jsonl.gz", "rows.csv"])
def test_content_decides_before_the_name(read, name):
    assert read([GOOD], name)[0].format == "jsonl"


def test_a_stream_can_be_read_twice(read):
    stream, drafts, _ = read([GOOD, {"no": "prompt"}])
    again = list(stream)
    assert again[0] == drafts[0]
    assert isinstance(again[1], RowRefused)
    assert drafts[0].source == "rows.jsonl"


# Row counts of the README of the data.
REAL = {
    "cmath_zh.jsonl": ("jsonl", "plain", 500),
    "college_math_ccby.jsonl": ("jsonl", "plain", 1060),
    "dapo_math_sample.jsonl": ("jsonl", "verl", 1194),
    "deepscaler_difficulty.jsonl": ("jsonl", "verl", 600),
    "deepscaler_sub.jsonl": ("jsonl", "verl", 1209),
    "gsm8k_test.jsonl": ("jsonl", "gsm8k", 1319),
    "gsm8k_train.jsonl": ("jsonl", "gsm8k", 4000),
    "olympiadbench_oe_to_maths_en.jsonl": ("jsonl", "olympiadbench", 540),
    "svamp.jsonl": ("jsonl", "svamp", 500),
    "formats/hf_gsm8k_test.parquet": ("parquet", "gsm8k", 1319),
    "formats/messages_answer_areal.jsonl": ("jsonl", "messages", 10),
    "formats/nemo_openmathinstruct2_sft.jsonl": ("jsonl", "nemo", 100),
    "formats/roll_deepmath.jsonl": ("jsonl", "roll", 400),
    "formats/verl_dapo_mini16.jsonl": ("jsonl", "verl", 16),
    "formats/verl_dapo_mini16.parquet": ("parquet", "verl", 16),
    "formats/verl_debug_arith8.jsonl": ("jsonl", "verl", 8),
    "formats/verl_deepscaler_sub.parquet": ("parquet", "verl", 1209),
    "formats/verl_gsm8k_test_250.jsonl": ("jsonl", "verl", 250),
    "formats/verl_oneshot_pi1_r128.parquet": ("parquet", "verl", 128),
    "formats/derived/gsm8k_100.csv": ("csv", "gsm8k", 100),
    "formats/derived/gsm8k_50.jsonl.gz": ("jsonl.gz", "gsm8k", 50),
    "formats/derived/gsm8k_20_utf8bom_crlf.jsonl": ("jsonl", "gsm8k", 20),
    "formats/derived/messages_sft.jsonl": ("jsonl", "messages", 100),
    "formats/derived/openrlhf_context_messages.jsonl": ("jsonl", "openrlhf", 100),
    "formats/derived/openrlhf_input_label.jsonl": ("jsonl", "openrlhf", 200),
    "formats/derived/slime_prompt_label.jsonl": ("jsonl", "slime", 16),
    "formats/derived/trl_grpo_prompt_only_solution.jsonl": ("jsonl", "trl_prompt_only", 100),
    "formats/derived/trl_prompt_completion.jsonl": ("jsonl", "trl_prompt_completion", 200),
    "formats/derived/trl_prompt_completion_chat.jsonl": ("jsonl", "trl_prompt_completion", 200),
    "formats/derived/verl_gsm8k_list_ground_truth.jsonl": ("jsonl", "verl", 50),
}


def read_real(name):
    path = Path(DATA) / name
    return collect(path, path.name)


@needs_data
@pytest.mark.parametrize("name", REAL)
def test_every_real_file_reads_whole(name):
    stream, drafts, refused = read_real(name)
    assert (stream.format, stream.shape, len(drafts)) == REAL[name]
    assert refused == []
    unanswered = [266] if "deepscaler_sub" in name else []
    assert [draft.line for draft in drafts if not draft.answer] == unanswered


@needs_data
@pytest.mark.parametrize(
    "name",
    [
        "formats/verl_gsm8k_test_250.jsonl",
        "formats/hf_gsm8k_test.parquet",
        "formats/derived/gsm8k_100.csv",
        "formats/derived/openrlhf_input_label.jsonl",
        "formats/derived/trl_prompt_completion.jsonl",
        "formats/derived/trl_prompt_completion_chat.jsonl",
        "formats/derived/verl_gsm8k_list_ground_truth.jsonl",
    ],
)
def test_one_question_in_any_wrapper_and_format_is_one_problem(name):
    answers = {draft.fingerprint: draft.answer for draft in read_real("gsm8k_test.jsonl")[1]}
    assert len(answers) == 1319
    drafts = read_real(name)[1]
    # A label of thousands keeps its comma, for it may be a list.
    assert [answers.get(draft.fingerprint) for draft in drafts] == [draft.answer.replace(",", "") for draft in drafts]
