"""MLflow as a view of the records: runs, registered models, their promotion. Only here is MLflow."""

FACE = {
    "compat": ("pages_server", "reads_views", "remove_files"),
    "mirror": ("Mirror", "mirror_of"),
    "models": ("FoundModel", "ModelFiles", "export_at", "find_model", "models_in_use"),
    "contest": ("Demands",),
    "gates": ("GateAnswer",),
    "moves": ("Move",),
    "moving": ("has_runs_of",),
    "promotion": ("ChampionHistory", "Promotion", "Rollback", "history", "promote", "rollback"),
    "registry": ("TrialModel", "held_versions", "load_model"),
    "runs": ("hide", "runs_of"),
    "store": ("SERVER_SECONDS", "Tracking", "check_tracking", "explained", "patience"),
    "names": ("SWEEP_ID", "TEST_READINGS", "VALIDATION", "VALIDATION_IMAGES", "experiment_name", "of_sweep"),
    "naming": ("require_family",),
    "views": ("show", "view_of"),
}
"""What other rooms may import, by module."""
