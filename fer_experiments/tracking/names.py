"""Names of tags by which runs and model versions are found, recognised and explained.

Params are the fields of the configuration; metrics are `<section>/<score>`: `train/loss`,
`val/macro_f1`, `val/clean/…` (images that the model was not trained on), `val/tta/…` (test-time
augmentation), `test/…`, `time/…`, `weights/…`, `audit/…`.
"""

from __future__ import annotations

# Marks the runs of this suite in a store that others write to as well; its value is the version.
SUITE = "fer_experiments"
# The command that made the run, and whose turn it was.
STAGE, BACKBONE, RECIPE, SEED = "stage", "backbone", "recipe", "seed"
DATASET_NAME, FINGERPRINT = "dataset_name", "dataset_fingerprint"
# Of a run that works on another one's model: that run, its stage, the model; of an ensemble, whose
# models it averages.
SOURCE_RUN, SOURCE_STAGE, MODEL_URI = "source_run_id", "source_stage", "model_uri"
MEMBERS = "member_run_ids"
# Why it did not finish, and MLflow's own tag of a run's note.
FAILURE, NOTE, RUN_NAME = "failure_reason", "mlflow.note.content", "mlflow.runName"
# Finds a run again whose making was cut short before its id was known here.
JOURNAL = "fer_experiments.journal"
# In the run that `mlflow run` made for a command that resumed another one.
RESUMES = "resumes"
# Of an experiment: the newest version of the suite that has written its saved views there.
VIEWS = "fer_experiments.views"

# Of evaluations: the definition of their scores; why it is not known on which of the images the
# model was trained; what images of val chose of it.
EVALUATION_FORMAT, OVERLAP_UNKNOWN = "evaluation_format", "overlap_unknown"
CHOSEN_ON_VAL = "chosen_on_val"
# The run that trained (or averaged) the model, the runs that trained it before that one, and of
# which model it is a test-time variant.
TRAINED_RUN, EARLIER_RUNS, VARIANT = "trained_run_id", "earlier_run_ids", "test_time_variant"

# Of registered models: the numbers of the versions that were champion, oldest first. Of versions:
# what was decided about them, why, by which numbers and in which run.
CHAMPION_HISTORY = "champion_history"
DECISION, DECISION_REASON = "decision", "decision_reason"
DECISION_NUMBERS, DECISION_RUN = "decision_numbers", "decision_run_id"
# With the format behind it, of versions: the newest file that was exported, and the run that did.
EXPORTED = "exported_"
