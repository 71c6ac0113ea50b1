"""What must hold in every committed state, as queries that return no rows; run them after a crash or a repair."""

from sqlalchemy import URL, create_engine, pool, text

from app.db.migrate import sync_url

_SUMS = ("n_passed", "n_counted", "n_failed", "n_truncated", "n_timeout", "n_grader_error", "n_infrastructure")
_GROUPED = ", ".join(f"SUM({name}) AS {name}" for name in _SUMS)
_DIFFERS = " OR ".join(f"e.{name} <> COALESCE(o.{name}, 0)" for name in ("n_groups", *_SUMS))
_VERDICTS = {"pass": "n_passed", **{name.removeprefix("n_"): name for name in _SUMS[3:]}, "fail": "n_failed"}
_ARRAYS = ("ordinals", "problem_ids", "pass_rates", "weights", "draw_probabilities", "loss_weights")

INVARIANTS = {
    "every estimate is the sum of its observations": f"""
        SELECT e.measurement_id, e.problem_id FROM estimates e LEFT JOIN (
            SELECT measurement_id, problem_id, COUNT(*) AS n_groups, {_GROUPED}
            FROM observations GROUP BY measurement_id, problem_id
        ) o ON o.measurement_id = e.measurement_id AND o.problem_id = e.problem_id WHERE {_DIFFERS}""",
    "the newest group of an estimate is its newest counted observation": """
        SELECT e.measurement_id, e.problem_id FROM estimates e JOIN (
            SELECT measurement_id, problem_id, MAX(observation_id) AS newest
            FROM observations WHERE n_counted > 0 GROUP BY measurement_id, problem_id
        ) o ON o.measurement_id = e.measurement_id AND o.problem_id = e.problem_id
        JOIN observations n ON n.observation_id = o.newest
        WHERE e.last_passed <> n.n_passed OR e.last_counted <> n.n_counted""",
    "every group of a lease has its rollouts, by verdict": f"""
        SELECT o.observation_id FROM observations o LEFT JOIN rollouts r ON r.observation_id = o.observation_id
        WHERE o.lease_id IS NOT NULL GROUP BY o.observation_id HAVING COUNT(r.position) = 0 OR {
        " OR ".join(
            f"COALESCE(SUM(CASE WHEN r.verdict = '{verdict}' THEN 1 ELSE 0 END), 0) <> MAX(o.{column})"
            for verdict, column in _VERDICTS.items()
        )
    }""",
    "a leased problem belongs to an active lease of its measurement, and expires with it": """
        SELECT e.measurement_id, e.problem_id FROM estimates e JOIN leases l ON l.lease_id = e.lease_id
        WHERE l.state <> 'active' OR l.measurement_id <> e.measurement_id OR l.expires_at <> e.lease_expires_at""",
    "each problem of a lease is leased or reported, or the lease is over": """
        SELECT l.lease_id FROM leases l WHERE l.state IN ('active', 'done') AND l.n_problems <>
            (SELECT COUNT(*) FROM estimates e WHERE e.lease_id = l.lease_id)
            + (SELECT COUNT(*) FROM observations o WHERE o.lease_id = l.lease_id)""",
    "a lease that is done holds nothing": """
        SELECT l.lease_id FROM leases l JOIN estimates e ON e.lease_id = l.lease_id WHERE l.state = 'done'""",
    "ordinals of a set are dense, and its totals right": """
        SELECT s.name FROM problem_sets s LEFT JOIN problems p ON p.problem_set = s.name GROUP BY s.name
        HAVING COUNT(p.problem_id) <> MAX(s.n_problems) OR COALESCE(MAX(p.ordinal) + 1, 0) <> MAX(s.n_problems)
            OR COALESCE(SUM(p.multiplicity), 0) <> MAX(s.n_rows)""",
    "a measurement has one estimate for each problem up to its total": """
        SELECT m.measurement_id FROM measurements m LEFT JOIN estimates e ON e.measurement_id = m.measurement_id
        GROUP BY m.measurement_id HAVING COUNT(e.problem_id) <> MAX(m.n_problems)
            OR COALESCE(MAX(e.ordinal) + 1, 0) <> MAX(m.n_problems)""",
    "an estimate has the ordinal and hold-out key of its problem, and is of its set": """
        SELECT e.measurement_id, e.problem_id FROM estimates e
        JOIN problems p ON p.problem_id = e.problem_id JOIN measurements m ON m.measurement_id = e.measurement_id
        WHERE p.ordinal <> e.ordinal OR p.holdout_key <> e.holdout_key OR p.problem_set <> m.problem_set""",
    "checkpoint indices of a student are dense": """
        SELECT student FROM checkpoints GROUP BY student HAVING COUNT(*) <> MAX("index") + 1""",
    "draws of a curriculum and steps of a run are dense": """
        SELECT curriculum_id FROM batches GROUP BY curriculum_id HAVING COUNT(*) <> MAX(seq) + 1
        UNION ALL SELECT run_id FROM batches WHERE run_id IS NOT NULL GROUP BY run_id
        HAVING COUNT(*) <> MAX(step) + 1""",
    "the arrays of a batch are aligned": f"""
        SELECT batch_id FROM batches WHERE {" OR ".join(f"LENGTH({name}) <> 8 * size" for name in _ARRAYS)}""",
    "only an acknowledged batch has outcomes": """
        SELECT o.observation_id FROM observations o JOIN batches b ON b.batch_id = o.batch_id
        WHERE b.state <> 'acknowledged'""",
    "versions of a curriculum are dense, the newest is in force": """
        SELECT c.curriculum_id FROM curricula c LEFT JOIN curriculum_versions v ON v.curriculum_id = c.curriculum_id
        GROUP BY c.curriculum_id HAVING COUNT(v.version) <> MAX(c.version) OR MAX(v.version) <> MAX(c.version)""",
}


def broken(url: URL) -> dict[str, list[tuple[object, ...]]]:
    """The invariants that do not hold, each with the first rows that break it; empty when all is well."""
    engine = create_engine(sync_url(url), poolclass=pool.NullPool)
    with engine.connect() as conn:
        found = {
            name: [tuple(row) for row in conn.execute(text(query)).fetchmany(10)] for name, query in INVARIANTS.items()
        }
    return {name: rows for name, rows in found.items() if rows}
