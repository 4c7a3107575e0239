"""The estimate of a search, as the terminal shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mergesearch.searching import Estimate, PlanOnly, SearchSetup


def show_estimate(setup: SearchSetup, estimate: Estimate) -> None:
    """Show what a search over a space would take."""
    space = setup.space
    tasks = ", ".join(
        f"{t.id.task} ({t.id.metric}, {t.n_documents})" for t in setup.evaluator.tasks()
    )
    search, seconds = space.search, estimate.seconds_per_candidate
    minutes = seconds * search.trials / 60
    if search.documents is not None:
        minutes = min(minutes, seconds * search.documents / estimate.n_documents / 60)
    minutes = min(minutes, search.minutes or minutes)
    size = f"{estimate.n_parameters / 1e6:.1f} M parameters"
    differences = setup.parents.differences
    match = "of one shape" if differences else "all match"
    print(f"models     {len(space.models)} of {size}, {match}")
    for difference in differences:
        print(f"differ     {difference}")
    for note in setup.parents.alignment.notes:
        print(f"tokens     {note}")
    print(f"methods    {', '.join(space.methods)}")
    print(f"tasks      {tasks}")
    print(f"documents  {estimate.n_documents} a candidate, {estimate.n_tokens} tokens")
    if (curriculum := setup.curriculum) is not None:
        n_passes = curriculum.learned.passes
        print(
            f"learning   {n_passes} passes of {curriculum.of_pass(1).n_lessons} documents, "
            f"{curriculum.n_answers} answers: about {estimate.seconds_per_pass:.1f} s a pass, "
            f"{setup.portion.n_lessons} documents at once"
            f"{', activations computed again' if setup.portion.checkpointing else ''}"
        )
        for line in curriculum.lines():
            print(f"           {line}")
    if (calibration := setup.calibration) is not None:
        n_bytes = calibration.disk_bytes(setup.soup)
        print(
            f"statistics {', '.join(calibration.kinds)}: {calibration.n_answers} answers, at most "
            f"{n_bytes / 1e9:.2f} GB on disk"
        )
        for line in calibration.lines():
            print(f"           {line}")
    print("\n".join(setup.memory.lines()))
    print(
        f"time       about {seconds:.1f} s a candidate, {search.trials} trials in at most "
        f"{minutes:.1f} min at the device's present speed"
    )
    print("Nothing is wrong with this space.")


def show_plan(plan: PlanOnly) -> None:
    """Show what a search would hold in which memory."""
    print("\n".join(plan.lines()))
