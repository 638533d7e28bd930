"""The durable study: a journal, the records that are read from it, and what to try next. Only here is Optuna."""

FACE = {
    "confirmation": ("Confirmed", "Repeat", "confirmed_of", "repeats_of", "typical_run"),
    "importance": ("Importance", "Importances", "importances_of"),
    "proposals": ("Costs",),
    "records": ("read_history",),
    "study": ("Asked", "Study"),
}
"""What other rooms may import, by module."""
