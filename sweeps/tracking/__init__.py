"""MLflow as a view of the records: runs, registered models, their promotion. Only here is MLflow."""

FACE = {
    "mirror": ("Mirror", "mirror_of"),
    "promotion": ("Promotion", "promote"),
    "registry": ("TrialModel", "held_versions", "model_name"),
    "runs": ("of_sweep", "runs_of"),
    "store": ("Tracking", "check_tracking", "explained", "remove_files"),
}
"""What other rooms may import, by module."""
