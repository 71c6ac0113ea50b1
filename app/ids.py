"""Public ids: a prefix that says what it is, and 72 random bits or the row's number."""

import secrets

from app.errors import NotFound


def new_id(prefix: str) -> str:
    """A fresh id such as `bat_9cVmX2kLq0Zs`."""
    while (made := secrets.token_urlsafe(9)).startswith("-"):  # a leading dash reads as an option in a shell
        pass
    return f"{prefix}_{made}"


def numbered(prefix: str, number: int) -> str:
    """The public id of a numbered row, such as `mea_12`."""
    return f"{prefix}_{number}"


def number_of(prefix: str, public_id: str) -> int:
    """The row number behind a public id; NotFound when it is of another kind."""
    head, _, tail = public_id.partition("_")
    if head != prefix or not tail.isdecimal() or len(tail) > 18:
        raise NotFound(f"{public_id!r} is not an id of the form {prefix}_NUMBER")
    return int(tail)
