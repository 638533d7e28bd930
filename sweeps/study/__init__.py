"""The durable study: a journal, the records that are read from it, and what to try next. Only here is Optuna."""
