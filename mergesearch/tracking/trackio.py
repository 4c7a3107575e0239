"""Trackio: wandb's interface, in files of this machine or a space of the hub."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from mergesearch.tracking.base import PROJECT, TrackedRun


class TrackioTracker:
    """A run of trackio; one that goes on is the same run there."""

    def __init__(self, run: TrackedRun) -> None:
        import trackio

        self._trackio = trackio
        self._name = f"{run.name}-{run.key[:8]}"
        trackio.init(
            project=PROJECT,
            name=self._name,
            config=dict(run.config),
            resume="allow",
            embed=False,
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log a trial's numbers at its step."""
        self._trackio.log(dict(values), step=step)

    def finish(self, values: Mapping[str, float], files: Mapping[str, str]) -> None:
        """Log the outcome, save files under the run's name, and end the run."""
        if values:
            self._trackio.log(dict(values))
        with tempfile.TemporaryDirectory() as folder:
            for name, text in files.items():
                file = Path(folder) / f"{self._name}-{name}"  # a project has one of each name
                file.write_text(text, encoding="utf-8")
                self._trackio.save(file, project=PROJECT)
            self._trackio.finish()
