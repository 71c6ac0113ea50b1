"""The workers page over HTTP: who is there, what waits, what is sick."""

import csv
import io

import httpx2

from paced import wire
from tests.app.conftest import MakeWorld
from tests.app.world import leased, verdict_group

PASS, TIMEOUT = wire.Verdict.PASS, wire.Verdict.TIMEOUT


def test_nobody_yet_says_how_to_begin(make_world: MakeWorld, browser: httpx2.Client) -> None:
    world = make_world(8, holdout_share=0.0)
    page = browser.get("/workers", params={"measurement": world.curriculum.measurement_id}).text
    assert "No worker was seen within a day" in page
    assert f"paced rollout {world.curriculum.student} --measurement {world.curriculum.measurement_id}" in page
    assert "No alarms" in page


def test_workers_and_alarms_are_shown(make_world: MakeWorld, browser: httpx2.Client) -> None:
    world = make_world(40, holdout_share=0.0)
    chosen = {"measurement": world.curriculum.measurement_id}
    lease = world.claim(20, worker="gpu-1")
    world.report(lease, [verdict_group(i, [PASS] * 4 + [TIMEOUT] * 4) for i in leased(lease)])
    world.claim(4, worker="gpu-2")
    page = browser.get("/workers", params=chosen).text
    assert "gpu-1" in page
    assert '<span class="tag good">1 live</span>' in page
    assert "grader failing" in page
    assert f"paced workers {world.curriculum.measurement_id}" in page
    overview = browser.get("/overview", params=chosen).text
    assert "grader failing" in overview
    assert "50% of 160 answers" in overview
    assert "See the workers" in overview
    assert "See the workers" not in page
    found = browser.get("/workers.json", params=chosen).json()
    assert found["workers"]["verdicts"] == {"pass": 80, "timeout": 80}
    assert [alarm["name"] for alarm in found["alarms"]] == ["grader_failing"]
    rows = list(csv.DictReader(io.StringIO(browser.get("/workers.csv", params=chosen).text)))
    assert [(row["worker"], row["n_live"], row["n_groups_1h"]) for row in rows] == [
        ("gpu-2", "1", "0"),
        ("gpu-1", "0", "20"),
    ]


def test_a_measurement_that_is_none_is_told(make_world: MakeWorld, browser: httpx2.Client) -> None:
    make_world(4)
    answer = browser.get("/workers", params={"measurement": "mea_99999"})
    assert answer.status_code == 404
    assert "there is no measurement" in answer.text


def test_a_measurement_at_rest_is_not_called_well(make_world: MakeWorld, browser: httpx2.Client) -> None:
    world = make_world(8, holdout_share=0.0)
    world.measure()
    world.clock.advance(2 * 86_400)
    page = browser.get("/workers", params={"measurement": world.curriculum.measurement_id}).text
    assert "Alarms rest: nobody worked here within a day" in page
    assert "No alarms" not in page
