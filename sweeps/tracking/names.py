"""Names of what carsweep has in MLflow, by which it finds it again.

carsweep.sweep_id   which sweep; on the parent run, on every child run, on models and versions
carsweep.job        on the runs of trials: of which job their sweep is; missing where it is of none
carsweep.role       "sweep", "trial", or "refit" of a trial; "surplus" where MLflow made a second run when asked twice
carsweep.trial      the trial's number
carsweep.state      complete, pruned, failed or interrupted; MLflow's pages show a pruned one as FINISHED, since nothing
                    went wrong in it, and as red as a failed one if it were KILLED
carsweep.reason     why, when there is a reason
carsweep.best_derived  accuracy and settings of the best trial that this one's network answered, too; it has no run
carsweep.family     on registered models: of which family they are; missing on those of older versions
carsweep.data       on registered models: the name of the data that they are of; missing where the user named the model
carsweep.written    a digest of all that the run says of a trial that has ended
"""

from __future__ import annotations

SWEEP_ID, JOB, ROLE, TRIAL = "carsweep.sweep_id", "carsweep.job", "carsweep.role", "carsweep.trial"
FAMILY, DATA = "carsweep.family", "carsweep.data"
STATE, REASON, WRITTEN = "carsweep.state", "carsweep.reason", "carsweep.written"
BEST_DERIVED, NOTE = "carsweep.best_derived", "mlflow.note.content"
CHALLENGER, CHAMPION = "challenger", "champion"
# The winner's answers to the test images, in the artifacts of its run, and the tag of a version that says which images
# these were: what promotion compares.
PREDICTIONS, TEST_IMAGES = "test-predictions.npz", "test_images"
# The same of the validation images, which decides who is challenger; and what was said when a version was to be.
VALIDATION, VALIDATION_IMAGES, CHALLENGE = "validation-predictions.npz", "validation_images", "carsweep.challenge"
# How often a test score of the version, or of another trial of its sweep, has been computed.
TEST_READINGS = "test_readings"


def experiment_name(family: str) -> str:
    """Return the name of the experiment that holds all sweeps of a family; the names of its models begin with it."""
    return f"carsweep-{family}"


def of_sweep(sweep_id: str) -> str:
    """Return the filter by which MLflow finds what it has of a sweep: runs, models and versions."""
    return f"tags.`{SWEEP_ID}` = '{sweep_id}'"
