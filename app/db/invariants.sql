-- What must hold in every committed state: each query returns the rows that break it. SQLite and PostgreSQL.

-- name: every estimate is the sum of its observations
SELECT e.measurement_id, e.problem_id
FROM estimates e
LEFT JOIN (
    SELECT measurement_id, problem_id, COUNT(*) AS n_groups, SUM(n_passed) AS n_passed, SUM(n_counted) AS n_counted,
        SUM(n_failed) AS n_failed, SUM(n_truncated) AS n_truncated, SUM(n_timeout) AS n_timeout,
        SUM(n_grader_error) AS n_grader_error, SUM(n_infrastructure) AS n_infrastructure
    FROM observations
    GROUP BY measurement_id, problem_id
) o ON o.measurement_id = e.measurement_id AND o.problem_id = e.problem_id
WHERE e.n_groups <> COALESCE(o.n_groups, 0)
    OR e.n_passed <> COALESCE(o.n_passed, 0)
    OR e.n_counted <> COALESCE(o.n_counted, 0)
    OR e.n_failed <> COALESCE(o.n_failed, 0)
    OR e.n_truncated <> COALESCE(o.n_truncated, 0)
    OR e.n_timeout <> COALESCE(o.n_timeout, 0)
    OR e.n_grader_error <> COALESCE(o.n_grader_error, 0)
    OR e.n_infrastructure <> COALESCE(o.n_infrastructure, 0);

-- name: the newest group of an estimate is its newest counted observation on the line of the newest checkpoint
WITH RECURSIVE line (student, "index", parent_index) AS (
    SELECT c.student, c."index", c.parent_index
    FROM checkpoints c
    WHERE c."index" = (SELECT MAX(other."index") FROM checkpoints other WHERE other.student = c.student)
    UNION ALL
    SELECT c.student, c."index", c.parent_index
    FROM line l
    JOIN checkpoints c ON c.student = l.student AND c."index" = COALESCE(l.parent_index, l."index" - 1)
)
SELECT e.measurement_id, e.problem_id
FROM estimates e
LEFT JOIN (
    SELECT o.measurement_id, o.problem_id, MAX(o.observation_id) AS newest
    FROM observations o
    JOIN measurements m ON m.measurement_id = o.measurement_id
    JOIN line l ON l.student = m.student AND l."index" = o.checkpoint_index
    WHERE o.n_counted > 0
    GROUP BY o.measurement_id, o.problem_id
) o ON o.measurement_id = e.measurement_id AND o.problem_id = e.problem_id
LEFT JOIN observations n ON n.observation_id = o.newest
WHERE e.last_passed <> COALESCE(n.n_passed, 0) OR e.last_counted <> COALESCE(n.n_counted, 0);

-- name: every reported group has its rollouts, by verdict
SELECT o.observation_id
FROM observations o
LEFT JOIN (
    SELECT observation_id,
        SUM(CASE WHEN verdict = 'pass' THEN 1 ELSE 0 END) AS n_passed,
        SUM(CASE WHEN verdict = 'fail' THEN 1 ELSE 0 END) AS n_failed,
        SUM(CASE WHEN verdict = 'truncated' THEN 1 ELSE 0 END) AS n_truncated,
        SUM(CASE WHEN verdict = 'timeout' THEN 1 ELSE 0 END) AS n_timeout,
        SUM(CASE WHEN verdict = 'grader_error' THEN 1 ELSE 0 END) AS n_grader_error,
        SUM(CASE WHEN verdict = 'infrastructure' THEN 1 ELSE 0 END) AS n_infrastructure
    FROM rollouts
    GROUP BY observation_id
) r ON r.observation_id = o.observation_id
WHERE o.batch_id IS NULL
    AND (r.observation_id IS NULL OR r.n_passed <> o.n_passed OR r.n_failed <> o.n_failed
        OR r.n_truncated <> o.n_truncated OR r.n_timeout <> o.n_timeout OR r.n_grader_error <> o.n_grader_error
        OR r.n_infrastructure <> o.n_infrastructure);

-- name: a leased problem belongs to an active lease of its measurement, and expires with it
SELECT e.measurement_id, e.problem_id
FROM estimates e
JOIN leases l ON l.lease_id = e.lease_id
WHERE l.state <> 'active' OR l.measurement_id <> e.measurement_id OR l.expires_at <> e.lease_expires_at;

-- name: each problem of a lease is held or reported, until the lease is over
SELECT l.lease_id
FROM leases l
WHERE l.state IN ('active', 'done')
    AND l.n_problems <> (SELECT COUNT(*) FROM estimates e WHERE e.lease_id = l.lease_id)
        + (SELECT COUNT(*) FROM observations o WHERE o.lease_id = l.lease_id);

-- name: ordinals of a set are dense, and its totals right
SELECT s.name
FROM problem_sets s
LEFT JOIN problems p ON p.problem_set = s.name
GROUP BY s.name, s.n_problems, s.n_rows
HAVING COUNT(p.problem_id) <> s.n_problems
    OR COALESCE(MAX(p.ordinal) + 1, 0) <> s.n_problems
    OR COALESCE(SUM(p.multiplicity), 0) <> s.n_rows;

-- name: a measurement has one estimate for each problem up to its total
SELECT m.measurement_id
FROM measurements m
LEFT JOIN estimates e ON e.measurement_id = m.measurement_id
GROUP BY m.measurement_id, m.n_problems
HAVING COUNT(e.problem_id) <> m.n_problems OR COALESCE(MAX(e.ordinal) + 1, 0) <> m.n_problems;

-- name: an estimate has the ordinal and the hold-out key of its problem, and is of its set
SELECT e.measurement_id, e.problem_id
FROM estimates e
JOIN problems p ON p.problem_id = e.problem_id
JOIN measurements m ON m.measurement_id = e.measurement_id
WHERE p.ordinal <> e.ordinal OR p.holdout_key <> e.holdout_key OR p.problem_set <> m.problem_set;

-- name: checkpoint indices of a student are dense
SELECT student FROM checkpoints GROUP BY student HAVING COUNT(*) <> MAX("index") + 1;

-- name: draws of a curriculum are dense
SELECT curriculum_id FROM batches GROUP BY curriculum_id HAVING COUNT(*) <> MAX(seq) + 1;

-- name: steps of a run are dense
SELECT run_id FROM batches WHERE run_id IS NOT NULL GROUP BY run_id HAVING COUNT(DISTINCT step) <> MAX(step) + 1;

-- name: the arrays of a batch are aligned
SELECT batch_id
FROM batches
WHERE LENGTH(ordinals) <> 4 * size OR LENGTH(problem_ids) <> 8 * size OR LENGTH(pass_rates) <> 4 * size
    OR LENGTH(weights) <> 4 * size OR LENGTH(draw_probabilities) <> 4 * size OR LENGTH(loss_weights) <> 4 * size
    OR LENGTH(posteriors) <> 8 * size;

-- name: only an acknowledged batch has outcomes
SELECT o.observation_id FROM observations o JOIN batches b ON b.batch_id = o.batch_id WHERE b.state <> 'acknowledged';

-- name: versions of a curriculum are dense, and the newest is in force
SELECT c.curriculum_id
FROM curricula c
LEFT JOIN curriculum_versions v ON v.curriculum_id = c.curriculum_id
GROUP BY c.curriculum_id, c.version
HAVING COUNT(v.version) <> c.version OR MAX(v.version) <> c.version;

-- name: an estimate of an up-to-date measurement has the state of its problem
SELECT e.measurement_id, e.problem_id
FROM estimates e
JOIN problems p ON p.problem_id = e.problem_id
JOIN measurements m ON m.measurement_id = e.measurement_id
JOIN problem_sets s ON s.name = m.problem_set
WHERE m.state_version = s.state_version AND e.state <> p.state;

-- name: the flagged problems of a set are counted
SELECT s.name
FROM problem_sets s
WHERE s.n_flagged <> (SELECT COUNT(*) FROM problems p WHERE p.problem_set = s.name AND p.state = 'flagged');

-- name: a step of a run has one batch that has not expired
SELECT run_id, step FROM batches WHERE run_id IS NOT NULL AND state <> 'expired' GROUP BY run_id, step HAVING COUNT(*) > 1;
