"""Weights & Biases."""

from collections.abc import Mapping

from mergesearch.tracking.base import PROJECT, TrackedRun


class WandbTracker:
    """A run of wandb; one that goes on is the same run there."""

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        self._wandb = wandb
        self._run = wandb.init(
            project=PROJECT, name=run.name, id=run.key, resume="allow", config=dict(run.config)
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log a trial's numbers at its step."""
        self._run.log(dict(values), step=step)

    def finish(self, values: Mapping[str, float], files: Mapping[str, str]) -> None:
        """Put the outcome into the summary, and files into an artifact."""
        self._run.summary.update(dict(values))
        if files:
            artifact = self._wandb.Artifact(f"run-{self._run.id}-report", type="report")
            for name, text in files.items():
                with artifact.new_file(name, mode="w", encoding="utf-8") as file:
                    file.write(text)
            self._run.log_artifact(artifact)
        self._run.finish()
