"""Whole sweeps and jobs of several: checked, planned, run, resumed, compared, cleaned up after."""

FACE = {
    "audit": ("audit_data", "label_config"),
    "cleaning": ("Cleared", "KEEP", "clear", "removed_text"),
    "command": ("Command", "chosen_experiments", "default_name", "specs_of_all", "specs_of_experiments"),
    "comparison": (
        "Comparison",
        "NARROW_COLUMNS",
        "Pair",
        "Together",
        "WINNER_COLUMNS",
        "columns_of",
        "compare_sweeps",
        "side_by_side",
        "sweep_json",
    ),
    "difference": ("Difference", "compare_two"),
    "plan": ("Plan",),
    "remembered": ("extended", "recall", "require_data"),
    "reproduction": ("Reproduction",),
    "several": ("plan_sweeps", "run_sweeps"),
    "status": ("COLUMNS", "SweepStatus", "members_of", "sweep_status", "sweeps_in"),
    "tracked": ("Remains", "Repaired", "find_remains", "page_of", "remove", "repair"),
}
"""What other rooms may import, by module."""
