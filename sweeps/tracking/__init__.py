"""MLflow as a view of the records: runs, registered models, their promotion. Only here is MLflow."""

import sweeps.tracking.compat  # noqa: F401 - before MLflow, which reads what it sets when it is imported

FACE = {
    "compat": ("pages_server", "reads_views", "remove_files"),
    "mirror": ("Mirror", "mirror_of"),
    "models": ("ModelFiles", "find_model", "models_in_use"),
    "contest": ("Demands",),
    "found": ("FoundModel", "export_at"),
    "gates": ("GateAnswer",),
    "moves": ("Move",),
    "moving": ("has_runs_of",),
    "promotion": ("ChampionHistory", "Promotion", "Rollback", "history", "promote", "rollback"),
    "pyfunc": ("save_beside",),
    "registry": ("TrialModel", "held_versions", "load_model"),
    "runs": ("hide", "runs_of"),
    "store": ("SERVER_SECONDS", "Tracking", "check_tracking", "explained", "patience"),
    "names": ("SWEEP_ID", "TEST_READINGS", "VALIDATION", "VALIDATION_IMAGES", "experiment_name", "of_sweep"),
    "naming": ("require_family",),
    "views": ("show", "view_of"),
}
"""What other rooms may import, by module."""
