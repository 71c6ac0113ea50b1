"""The data flow, left to right; a stage imports only stages to its left.

problems -> students -> rollouts -> estimates -> curricula -> batches -> training

Router order, OpenAPI tags and the README's picture follow this order. Each stage folder reads
api.py (routes) -> service.py (decisions) -> store.py (every SQL statement), beside pure modules.
"""

STAGES = {
    "problems": "Problem sets, and files imported into them.",
    "students": "Students, their checkpoints, and the sampling profiles under which they answer.",
    "rollouts": "Measurements, and the leases by which workers carry them out.",
    "estimates": "Pass rates, hold-out progress, the frontier.",
    "curricula": "Rules that turn pass rates into weights.",
    "batches": "Weighted draws, durable and explained.",
    "training": "Runs, metrics, and what teachers say.",
}
