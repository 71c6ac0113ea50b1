"""Keys: 401 on every route, 403 for a scope, revoked at once, and no secret kept in the clear."""

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import create_engine, pool, text

from app.auth.service import private_text
from paced import Client, wire
from paced.errors import NotAllowed, NotFound
from tests.app.problem_details import assert_problem
from tests.service import ADMIN_KEY, Service, serve

PUBLIC = {"/healthz", "/readyz", "/openapi.json"}
# which scope lets a key call an operation; reading is for `read`
SCOPES = {
    "import": {"create_problem_set", "import_problems", "decide_problem", "review_answer", "count_reviews"},
    "rollout": {"create_measurement", "claim_lease", "renew_lease", "report_rollouts", "release_lease", "regrade"},
    "train": {
        "create_student",
        "register_checkpoint",
        "create_profile",
        "create_curriculum",
        "update_curriculum",
        "draw_batch",
        "draw_batches",
        "acknowledge_batch",
        "create_run",
        "update_run",
        "append_metrics",
        "store_references",
        "grade",
    },
    "admin": {"create_key", "list_keys", "revoke_key"},
}


@pytest.fixture(scope="module")
def operations(lite_service: Service) -> list[tuple[str, str, str]]:
    """(id, method, path) of every operation that needs a key."""
    document = httpx2.get(f"{lite_service.url}/openapi.json").json()
    return [
        (operation["operationId"], method.upper(), path)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if path not in PUBLIC
    ]


@pytest.fixture
def http(lite_service: Service) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=lite_service.url) as made:
        yield made


@pytest.fixture
def admin(lite_service: Service) -> Iterator[Client]:
    with lite_service.client() as made:
        yield made


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer wrong",
        "Bearer paced.key_nope.secret",
        "Bearer paced..",
        f"Basic {ADMIN_KEY}",
        ADMIN_KEY,
        f"Bearer {ADMIN_KEY}x",
        "Bearer clé".encode("latin-1"),
    ],
)
def test_every_route_asks_for_a_key(
    http: httpx2.Client, operations: list[tuple[str, str, str]], header: str | bytes | None
) -> None:
    headers = {} if header is None else {"Authorization": header}
    unknown_too = [*operations, ("", "GET", "/v1/nope"), ("", "GET", "/"), ("", "GET", "/docs"), ("", "PUT", "/v1")]
    assert len(operations) > 40
    for _, method, path in unknown_too:
        answer = http.request(method, path, headers=headers, content=b"{}")
        assert_problem(answer, 401, "unauthenticated")
        assert answer.headers["www-authenticate"] == 'Bearer realm="paced"'


def test_public_routes_ask_for_none(http: httpx2.Client) -> None:
    for path in PUBLIC:
        assert http.get(path).status_code == 200
        assert http.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 200


def test_every_operation_needs_its_scope(
    http: httpx2.Client, admin: Client, operations: list[tuple[str, str, str]]
) -> None:
    needed = dict.fromkeys([name for name, *_ in operations], "read") | {
        name: scope for scope, names in SCOPES.items() for name in names
    }
    assert set(needed) == {name for name, *_ in operations}
    for scope in wire.Scope:
        key = admin.create_key(wire.KeyCreate(name=f"only-{scope}", scopes=[scope]))
        headers = {"Authorization": f"Bearer {key.secret}", "Content-Type": "application/json"}
        for name, method, path in operations:
            answer = http.request(method, path, headers=headers, content=b"{}")
            if scope in {needed[name], "admin"}:
                assert answer.status_code not in {401, 403}, (scope, name)
            else:
                assert_problem(answer, 403, "forbidden")
                assert answer.json()["scope"] == needed[name]


def test_several_scopes_add_up(lite_service: Service, admin: Client) -> None:
    made = admin.create_key(wire.KeyCreate(name="both", scopes=[wire.Scope.READ, wire.Scope.TRAIN]))
    with lite_service.client(made.secret) as client:
        client.create_student(wire.StudentCreate(name="of-both"))
        assert client.student("of-both").name == "of-both"
        with pytest.raises(NotAllowed, match="lacks the scope 'import'"):
            client.create_problem_set(wire.ProblemSetCreate(name="x"))


def test_a_revoked_key_is_refused_at_once(lite_service: Service, admin: Client) -> None:
    made = admin.create_key(wire.KeyCreate(name="gone", scopes=[wire.Scope.READ]))
    shown = {key.key_id: key for key in list(admin.keys())}
    assert shown[made.key_id] == wire.Key(**made.model_dump(exclude={"secret"}))
    with lite_service.client(made.secret) as client:
        assert isinstance(list(client.students()), list)
        admin.revoke_key(made.key_id)
        with pytest.raises(NotAllowed) as caught:
            list(client.students())
    assert caught.value.status == 401
    assert made.key_id not in {key.key_id for key in list(admin.keys())}
    with pytest.raises(NotFound):
        admin.revoke_key(made.key_id)


def test_secrets_are_stored_hashed_only(database: str | None, tmp_path: Path) -> None:
    with serve(tmp_path / "data", database) as service, service.client() as client:
        made = client.create_key(wire.KeyCreate(name="one", scopes=[wire.Scope.READ]))
        engine = create_engine(service.settings.database_url, poolclass=pool.NullPool)
        with engine.connect() as conn:
            rows = [dict(row) for row in conn.execute(text("SELECT * FROM keys")).mappings()]
    stored = json.dumps(rows, default=str)
    assert len(rows) == 2
    assert {len(row["secret_hash"]) for row in rows} == {64}
    for secret in (made.secret, made.secret.rpartition(".")[2], ADMIN_KEY):
        assert secret not in stored
    if database is None:
        files = b"".join(file.read_bytes() for file in (tmp_path / "data").glob("paced.sqlite3*"))
        assert made.secret.rpartition(".")[2].encode() not in files
        assert ADMIN_KEY.encode() not in files


def test_the_first_admin_key_is_in_a_private_file_and_survives_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PACED_KEY", raising=False)
    folder = tmp_path / "data"
    keys = []
    for _ in range(2):
        with serve(folder, None, admin_key=None) as service:
            key = (folder / "admin.key").read_text().strip()
            keys.append(key)
            with service.client(key) as client:
                assert [key.name for key in list(client.keys())] == ["admin"]
            monkeypatch.setenv("PACED_DATA", str(folder))
            with Client(service.url, retry_s=0) as client:  # finds the key by itself
                assert client.key == key
                assert list(client.students()) == []
    assert keys[0] == keys[1]
    assert len(keys[0]) >= 43
    for name in ("admin.key", "secret"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600


def test_another_pepper_refuses_old_keys_but_not_the_operators(tmp_path: Path) -> None:
    with serve(tmp_path / "data", None, secret="one") as service, service.client() as client:
        made = client.create_key(wire.KeyCreate(name="old", scopes=[wire.Scope.READ]))
    with serve(tmp_path / "data", None, secret="two") as service:
        with service.client() as client:
            assert list(client.students()) == []
        with service.client(made.secret) as client, pytest.raises(NotAllowed):
            list(client.students())


def test_a_private_file_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "secret"
    assert private_text(path, "first") == "first"
    assert private_text(path, "second") == "first"
    assert [file.name for file in path.parent.iterdir()] == ["secret"]
