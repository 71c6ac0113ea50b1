"""The data flow, left to right; a stage imports only stages to its left.

problems -> students -> rollouts -> estimates -> curricula -> batches -> training

Router order, OpenAPI tags and the README's picture follow this order. Each stage folder reads
api.py (routes) -> service.py (decisions) -> store.py (every SQL statement), beside pure modules.
"""

STAGES = ("problems", "students", "rollouts", "estimates", "curricula", "batches", "training")
