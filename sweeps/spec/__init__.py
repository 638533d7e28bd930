"""What a sweep is: its settings, its search space, what it is after; read from YAML, ``--set`` and options."""

FACE = {
    "documented": (
        "DocumentedExperiment",
        "EXPERIMENTS",
        "LEAK_MARK",
        "applies_to",
        "experiments_of",
        "find_experiment",
        "setting_of",
        "settings_for",
    ),
    "fields": ("AUTO", "EarlyStopping", "Prices", "survival", "usable_as_folder"),
    "loading": ("cut_neighbours", "edit_spec", "load_spec", "packaged_specs", "with_neighbours_of"),
    "mistakes": ("Mistakes",),
    "objectives": ("ACCURACY_ALONE", "QUANTITIES", "Goals", "Quantity", "find_quantity"),
    "samplers": ("SAMPLERS",),
    "space": ("Choice", "Domain", "Range", "fits", "parameters_of"),
    "settings": ("Setting", "differences", "domain_text", "settings", "settings_about"),
    "spec": ("SweepSpec",),
    "sweep_file": (
        "Kind",
        "SweepFile",
        "forget",
        "has_begun",
        "is_known",
        "is_sweep",
        "read_file",
        "read_spec",
        "require_kind",
        "sweeps_of",
        "text_with_id",
        "write_file",
    ),
    "values": ("TRIAL_SETTINGS",),
    "yaml_text": ("write_value",),
}
"""What other rooms may import, by module."""
