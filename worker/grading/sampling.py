"""Compare two formulas at fixed sample points (Schwartz 1980, Zippel 1979), where simplification finds no answer."""

from typing import Any

N_NEEDED = 4  # points at which both are real and agree
DIGITS = 30
TOLERANCE = 1e-12  # relative: an exponent such as 0.5 is a float
MAX_SYMBOLS = 12
MAX_OPERATIONS = 200
ROWS = 14  # of points; every second is positive throughout


def agree_at_points(gold: Any, found: Any, tolerance: float = TOLERANCE) -> bool | None:
    """Whether two SymPy expressions of the same symbols agree at every point where both are real, of either sign.

    None where that cannot be told: other symbols, no plain expression, one that is too large, or fewer than N_NEEDED
    such points. `tolerance` is relative.
    """
    symbols = _symbols(gold, found)
    if symbols is None:
        return None
    n_agreed = 0
    for row in range(ROWS):
        point = {symbol: _coordinate(row, column) for column, symbol in enumerate(symbols)}
        a, b = _real(gold, point), _real(found, point)
        if a is None or b is None:
            continue
        if abs(a - b) > max(TOLERANCE, tolerance) * max(abs(a), abs(b)):
            return False
        n_agreed += 1
    return True if n_agreed >= N_NEEDED else None


def equations_agree(gold: Any, found: Any) -> bool | None:
    """Whether two polynomial equations are one but for a factor; None where one is no such equation.

    math-verify compares real solutions, so that to it all equations without any are one.
    """
    from sympy import Equality

    if not (isinstance(gold, Equality) and isinstance(found, Equality)):
        return None
    a, b = gold.lhs - gold.rhs, found.lhs - found.rhs
    symbols = _symbols(a, b)
    if symbols is None or not (a.is_polynomial(*symbols) and b.is_polynomial(*symbols)):
        return None
    first = {symbol: _coordinate(0, column) for column, symbol in enumerate(symbols)}
    factor = _real(b, first)
    return agree_at_points(a * factor, b * _real(a, first)) if factor else None


def _symbols(gold: Any, found: Any) -> list[Any] | None:
    """Return the symbols in a fixed order where the two can be compared."""
    from sympy import Derivative, Expr, Integral, Limit, Product, Sum
    from sympy.core.function import AppliedUndef

    opaque = (AppliedUndef, Sum, Product, Integral, Derivative, Limit)
    for value in (gold, found):
        if not isinstance(value, Expr) or value.has(*opaque) or value.count_ops() > MAX_OPERATIONS:
            return None
    symbols = gold.free_symbols
    if not symbols or symbols != found.free_symbols or len(symbols) > MAX_SYMBOLS:
        return None
    return sorted(symbols, key=str)


def _coordinate(row: int, column: int) -> Any:
    """Return a rational without pattern, between 0.3 and 2.3; negative in some columns of every second row."""
    from sympy import Rational

    size = Rational(30 + (row * 7919 + column * 104729 + row * column * 611953) % 200, 100) + Rational(1, 97 + column)
    return -size if row % 2 and (row // 2 + column) % 2 else size


def _real(value: Any, point: dict[Any, Any]) -> Any:
    try:
        result = value.subs(point).evalf(DIGITS)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError, AttributeError):
        return None
    return result if result.is_real and result.is_finite else None
