"""What came of a sweep: leaderboard, result, evaluations on the test images; views of the records."""

FACE = {
    "environment": ("environment_here",),
    "leaderboard": (
        "COLUMNS",
        "CROSS",
        "Leaderboard",
        "Row",
        "STAR",
        "differing_settings",
        "find_best",
        "half_width",
        "shown_columns",
        "varying_settings",
    ),
    "evaluations": ("find_evaluation",),
    "models": ("parts_of", "ranked_models", "wanted_models"),
    "result": (
        "Champion",
        "Compared",
        "REGISTERED",
        "RESULT",
        "Registered",
        "SweepResult",
        "TEST_PREDICTIONS",
        "TestEvaluation",
        "UsedUp",
        "find_result",
        "read_result",
        "saved_text",
        "spent_dict",
        "spent_text",
        "used_up_note",
    ),
}
"""What other rooms may import, by module."""
