"""What every error answer must look like."""

import httpx2


def assert_problem(response: httpx2.Response, status: int, code: str) -> None:
    body = response.json()
    assert (response.status_code, body.get("code")) == (status, code), body
    assert response.headers["content-type"] == "application/problem+json"
    assert (body["status"], body["type"]) == (status, f"urn:paced:error:{code}")
    assert body["title"]
    assert body["detail"]
