"""The table of problems and the page of one: queries, chips, columns, pages, twins, decisions; without scripts."""

import csv
import html
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from paced import Client, wire
from tests.app.conftest import SUFFIXES, MakeWorld
from tests.app.problem_details import assert_problem
from tests.app.world import World, measure
from tests.dashboard.conftest import OpenBrowser
from tests.dashboard.test_signing import csrf_of
from tests.service import Service, TestClock

N = 120
HOSTILE = "<script>alert(1)</script> & $\\text{<img src=x onerror=alert(1)>}$ \"'"
HOSTILE_TAG = 'a "b", <i>\\c'
MakeKey = Callable[..., wire.KeyCreated]


@pytest.fixture(scope="module")
def world(
    shared_service: Service, shared_clock: TestClock, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """120 problems of three tags, one of them hostile and one a chat, measured twice and drawn."""
    name = f"shown-{next(SUFFIXES)}"
    file = tmp_path_factory.mktemp("problems") / "p.jsonl"
    rows = [{"prompt": f"Compute $x_{{{i}}}$.", "answer": str(i), "tags": [f"t{i % 3}"]} for i in range(N)]
    rows[5] = {"prompt": HOSTILE, "answer": HOSTILE, "tags": [HOSTILE_TAG]}
    rows[6] = {"messages": [{"role": "user", "content": "Add \\(1+1\\)."}], "answer": "2", "solution": "so $1+1=2$"}
    file.write_text("\n".join(map(json.dumps, rows)))
    with shared_service.client() as client:
        client.create_problem_set(wire.ProblemSetCreate(name=name))
        client.import_problems(name, file)
        client.create_student(wire.StudentCreate(name=name))
        profile = client.create_profile(wire.ProfileCreate()).profile_id
        fields = {"name": name, "student": name, "problem_set": name, "profile_id": profile}
        curriculum = client.create_curriculum(wire.CurriculumCreate.model_validate(fields))
        for checkpoint in range(2):
            client.register_checkpoint(name, wire.CheckpointCreate(uri=f"/m/{checkpoint}"))
            measure(client, name, lambda i: i % 9, 64)
        client.acknowledge(client.draw_batch(curriculum.curriculum_id, 16).batch_id)
        yield World(shared_service, client, shared_clock, curriculum)


def table(browser: httpx2.Client, world: World, query: str = "", **params: object) -> str:
    answer = browser.get("/problems", params={"curriculum": world.curriculum.curriculum_id, "q": query, **params})
    assert answer.status_code == 200, answer.text
    return answer.text


def ordinals(page: str) -> list[int]:
    return [int(found) for found in re.findall(r'aria-label="Problem (\d+)"', page)]


def links(page: str) -> dict[str, str]:
    """The page's links by their text."""
    found = re.findall(r'<a[^>]*? ?href="([^"]+)"[^>]*>(.*?)</a>', page, re.DOTALL)
    return {re.sub(r"<[^>]+>", "", text).strip(): html.unescape(address) for address, text in found}


def test_a_query_filters_sorts_and_counts(browser: httpx2.Client, world: World) -> None:
    page = table(browser, world, "tag:t1 p<0.5 sort:-weight")
    rows = list(world.client.estimates(curriculum_id=world.curriculum.curriculum_id, query="tag:t1 p<0.5 sort:-weight"))
    assert ordinals(page) == [row.ordinal for row in rows]
    assert f"<strong>{len(rows)}</strong> problems match" in page
    assert 'aria-sort="descending"' in page
    assert 'value="tag:t1 p&lt;0.5 sort:-weight"' in page


def test_a_chip_takes_its_filter_away_and_keeps_the_rest(browser: httpx2.Client, world: World) -> None:
    page = table(browser, world, 'tag:t1 p<0.5 "compute" sort:-p', columns=["ordinal", "p"])
    without = browser.get(links(page)["Remove tag:t1 ✕"]).text
    assert 'value="p&lt;0.5 text:compute sort:-p"' in without
    assert "<th" in without
    assert without.count('scope="col"') == 2
    assert (
        ordinals(without)
        == [
            row.ordinal
            for row in world.client.estimates(world.curriculum.measurement_id, query="p<0.5 compute sort:-p", limit=50)
        ][:50]
    )


def test_headings_sort_the_other_way_at_the_second_click(browser: httpx2.Client, world: World) -> None:
    page = table(browser, world, "tag:t1")
    once = browser.get(links(page)["Weight"]).text
    assert 'value="tag:t1 sort:-weight"' in once
    twice = browser.get(links(once)["Weight ▼"]).text
    assert 'value="tag:t1 sort:weight"' in twice
    curriculum_id = world.curriculum.curriculum_id
    rows = world.client.estimates(curriculum_id=curriculum_id, query="tag:t1 sort:weight", limit=50)
    lightest = [row.ordinal for row in rows][:50]
    assert ordinals(twice) == lightest != ordinals(once)


def test_pages_follow_by_cursor_and_hold_each_row_once(browser: httpx2.Client, world: World) -> None:
    page, found = table(browser, world, "sort:-p"), []
    while True:
        found += ordinals(page)
        if "Next page" not in links(page):
            break
        page = browser.get(links(page)["Next page"]).text
    assert sorted(found) == list(range(N))
    assert ordinals(browser.get(links(page)["First page"]).text) == found[:50]


def test_twins_hold_the_same_rows(browser: httpx2.Client, world: World) -> None:
    page = table(browser, world, "p<0.3 sort:p")
    rows = browser.get(links(page)["JSON"]).json()
    lines = list(csv.DictReader(io.StringIO(browser.get(links(page)["CSV"]).text)))
    assert [row["ordinal"] for row in rows["rows"]] == ordinals(page) == [int(line["ordinal"]) for line in lines]
    assert float(lines[0]["pass_rate"]) == rows["rows"][0]["pass_rate"]
    assert not any(name.startswith("_") for name in rows)


@pytest.mark.parametrize("query", ["p<<3", "tagg:x", 'text:"a', "sort:tag", "x" * 1001])
def test_a_bad_query_is_told_where_it_stands(browser: httpx2.Client, world: World, query: str) -> None:
    page = table(browser, world, query)
    assert 'role="alert"' in page
    assert "query, character" in page
    assert not ordinals(page)
    params = {"curriculum": world.curriculum.curriculum_id, "q": query}
    twin = browser.get("/problems.json", params=params, headers={"Accept": "application/json"})
    assert_problem(twin, 422, "bad_query")


def test_no_match_and_no_measurement_say_what_helps(browser: httpx2.Client, world: World) -> None:
    page = table(browser, world, "tag:none")
    assert "No problem matches" in page
    assert ordinals(browser.get(links(page)["Show all of them"]).text) == list(range(50))


def detail(browser: httpx2.Client, world: World, ordinal: int) -> httpx2.Response:
    params = {"curriculum": world.curriculum.curriculum_id}
    return browser.get(f"/problems/{world.curriculum.problem_set}/{ordinal}", params=params)


def test_a_problem_shows_formulas_history_answers_and_why(browser: httpx2.Client, world: World) -> None:
    text = detail(browser, world, 7).text
    assert '<math display="inline">' in text
    assert '<h2 id="prompt">Prompt</h2>' in text
    assert "Checkpoint 1:" in text
    assert "answer 0" in text
    assert "drift filter, as draws see it" in text
    assert re.search(r"as often as the mean problem|held out|in the open batch", text)
    twin = browser.get(links(text)["JSON"]).json()
    estimate = world.client.estimate(world.curriculum.measurement_id, twin["problem"]["problem_id"])
    assert len(twin["history"]) == len(estimate.observations) == 2
    assert twin["history"][-1]["pass_rate"] == estimate.pass_rate
    assert (twin["history"][-1]["low"], twin["history"][-1]["high"]) == estimate.interval


def test_a_drawn_problem_names_its_batches_and_why_it_waits(browser: httpx2.Client, world: World) -> None:
    batch = world.draw(4)
    rows = {row.problem_id: row.ordinal for row in world.client.estimates(world.curriculum.measurement_id)}
    text = detail(browser, world, rows[batch.problem_id[0]]).text
    assert f"It is in the open batch {batch.batch_id}" in text
    assert "Why it is not served" in text
    twin = browser.get(links(text)["JSON"]).json()
    (held,) = [one for one in twin["standing"]["batches"] if one["batch_id"] == batch.batch_id]
    assert held["weight"] == pytest.approx(batch.weight[0])
    world.client.acknowledge(batch.batch_id)
    assert "open batch" not in detail(browser, world, rows[batch.problem_id[0]]).text


def test_a_hostile_problem_does_nothing(browser: httpx2.Client, world: World) -> None:
    for page in (detail(browser, world, 5).text, table(browser, world, "ordinal:5")):
        assert "alert(1)" in page
        assert "<script>alert" not in page
        assert "<img src=x" not in page
    assert world.client.problem(world.curriculum.problem_set, 5).tags == [HOSTILE_TAG]
    tag = links(detail(browser, world, 5).text)["a &#34;b&#34;, &lt;i&gt;\\c"]
    assert ordinals(browser.get(tag).text) == [5]


def test_a_chat_shows_who_says_what(browser: httpx2.Client, world: World) -> None:
    text = detail(browser, world, 6).text
    assert '<h3 class="role">user</h3>' in text
    assert "Reference solution" in text


def test_decisions_are_taken_in_the_name_of_the_key_and_kept(
    open_browser: OpenBrowser, key_of: MakeKey, world: World
) -> None:
    someone = open_browser(key_of(wire.Scope.READ, wire.Scope.IMPORT).secret)
    page = detail(someone, world, 20)
    path, token = str(page.url).removeprefix(world.service.url), csrf_of(page.text)
    assert someone.post(path, data={"state": "flagged"}).status_code == 403
    done = someone.post(path, data={"csrf": token, "state": "flagged", "note": "looks <wrong>"})
    assert done.status_code == 303
    after = someone.get(done.headers["location"]).text
    assert "ready → flagged" in after
    assert "<td>someone</td>" in after
    assert "looks &lt;wrong&gt;" in after
    assert "It is set aside" in after
    assert "Release: serve it" in after
    assert someone.post(path, data={"csrf": token, "state": "ready"}).status_code == 303
    assert "It is set aside" not in someone.get(path).text
    kept = [d for d in world.client.decisions(world.curriculum.problem_set) if d.ordinal == 20]
    assert [(d.state_after, d.decided_by) for d in kept] == [("flagged", "someone"), ("ready", "someone")]


def test_a_judged_reference_is_not_changed_and_the_page_says_why(browser: httpx2.Client, world: World) -> None:
    page = detail(browser, world, 21)
    path = str(page.url).removeprefix(world.service.url)
    form = {"csrf": csrf_of(page.text), "state": "ready", "answer": "99", "note": "typo"}
    refused = browser.post(path, data=form)
    assert refused.status_code == 409
    assert 'role="alert"' in refused.text
    assert "would mix two references" in refused.text
    assert 'value="99"' in refused.text
    assert world.client.problem(world.curriculum.problem_set, 21).answer == "21"


def test_who_may_only_read_gets_no_forms(open_browser: OpenBrowser, key_of: MakeKey, world: World) -> None:
    reader = open_browser(key_of(wire.Scope.READ).secret)
    page = detail(reader, world, 22)
    assert 'name="state"' not in page.text
    path = str(page.url).removeprefix(world.service.url)
    assert reader.post(path, data={"csrf": csrf_of(page.text), "state": "excluded"}).status_code == 403
    assert world.client.problem(world.curriculum.problem_set, 22).state == "ready"


def test_a_problem_that_is_none_is_not_found(browser: httpx2.Client, world: World) -> None:
    missing = detail(browser, world, N)
    assert missing.status_code == 404
    assert "its ordinals end at" in missing.text


def test_a_set_that_nobody_measured_still_shows_its_problems(
    browser: httpx2.Client, shared_client: Client, world: World, tmp_path: Path
) -> None:
    name = f"alone-{next(SUFFIXES)}"
    (tmp_path / "p.jsonl").write_text(json.dumps({"prompt": "Compute 1.", "answer": "1"}))
    shared_client.create_problem_set(wire.ProblemSetCreate(name=name))
    shared_client.import_problems(name, tmp_path / "p.jsonl")
    page = browser.get(f"/problems/{name}/0")
    assert page.status_code == 200
    assert "No student is measured on this set" in page.text


def test_outcomes_of_trainers_do_not_hide_stored_answers(browser: httpx2.Client, make_world: MakeWorld) -> None:
    world = make_world(20)
    world.measure()
    for _ in range(4):
        batch = world.draw(8)
        told = [wire.Outcome(problem_id=i, checkpoint_index=0, n_passed=1, n_failed=0) for i in batch.problem_id]
        world.client.acknowledge(batch.batch_id, told)
    ordinal = world.estimate(batch.problem_id[0]).ordinal
    page = detail(browser, world, ordinal).text
    assert "Checkpoint 0: " in page.partition('id="answers"')[2]
    assert "None yet." not in page.partition('id="answers"')[2].partition("</section>")[0]
