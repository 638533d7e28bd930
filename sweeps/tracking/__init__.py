"""MLflow as a view of the records: runs, registered models, their promotion. Only here is MLflow."""

FACE = {
    "compat": ("remove_files",),
    "mirror": ("Mirror", "mirror_of"),
    "promotion": ("Promotion", "promote"),
    "registry": ("TrialModel", "held_versions", "load_model"),
    "runs": ("runs_of",),
    "store": ("Tracking", "check_tracking", "explained"),
    "updates": ("model_name", "of_sweep"),
}
"""What other rooms may import, by module."""
