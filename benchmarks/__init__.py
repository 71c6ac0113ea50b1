"""Every figure that the README claims, each one command: `python -m benchmarks NAME --json`.

A benchmark is a module with `run(small: bool) -> dict` giving `settings`, `rows` (both sides, as measured)
and `figures` (a flat object). Both sides run in one go; figures are ratios of medians, since machines are noisy.
"""
