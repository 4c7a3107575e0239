"""MLflow: a local folder or a server, as MLFLOW_TRACKING_URI says."""

from collections.abc import Mapping

from mergesearch.tracking.base import PROJECT, TrackedRun


class MlflowTracker:
    """A run of MLflow; a search that goes on is a further run of the same tag."""

    def __init__(self, run: TrackedRun) -> None:
        import mlflow

        self._mlflow = mlflow
        mlflow.set_experiment(PROJECT)
        mlflow.start_run(run_name=run.name, tags={"mergesearch.run": run.key})
        mlflow.log_dict(dict(run.config), "space.yaml")

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log a trial's numbers at its step."""
        self._mlflow.log_metrics(dict(values), step=step)

    def finish(self, values: Mapping[str, float], files: Mapping[str, str]) -> None:
        """Log the outcome and files, and end the run."""
        self._mlflow.log_metrics(dict(values))
        for name, text in files.items():
            self._mlflow.log_text(text, name)
        self._mlflow.end_run()
