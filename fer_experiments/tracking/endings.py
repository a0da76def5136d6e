"""How runs end that did not finish, and what stays of their journals. Needs no MLflow."""

from __future__ import annotations

from fer_experiments.tracking import names
from fer_experiments.tracking.events import End
from fer_experiments.tracking.journal import Journal

# Stages that can be resumed where they were cut short.
RESUMABLE = ("train", "finetune", "main")


def release(journal: Journal) -> None:
    """Lets go of a journal; removes it if MLflow has everything and nobody can resume it."""
    status = journal.ended
    last = journal.events[-1] if journal.events else None
    can_resume = (
        status != "FINISHED"
        and not journal.is_empty
        and journal.start.stage in RESUMABLE
        and (last.resumable if isinstance(last, End) else True)
    )
    if status == "FINISHED":
        journal.checkpoint.unlink(missing_ok=True)
    if journal.pending or can_resume:
        journal.close()
    else:
        journal.remove()


def early_end_tags(reason: str, resume_with: str | None) -> dict[str, str]:
    """What a run says that did not finish; `resume_with` is the command that resumes it."""
    note = f"**Did not finish:** {reason}"
    if resume_with is not None:
        note += f"\n\nGo on with `{resume_with}`"
    return {names.FAILURE: reason, names.NOTE: note}


def resume_command(journal: Journal) -> str:
    """What to type to resume a run that did not finish."""
    offline = " --offline" if journal.start.store is None and journal.run_id is None else ""
    return f"fer {journal.start.stage} --resume {journal.run_id or journal.key}{offline}"
