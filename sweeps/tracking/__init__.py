"""MLflow as a view of the records: runs, registered models, their promotion. Only here is MLflow."""
