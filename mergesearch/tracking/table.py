"""The trackers by name: a file and a row each."""

from mergesearch.plugins import Table
from mergesearch.tracking.base import TrackerFactory
from mergesearch.tracking.mlflow import MlflowTracker
from mergesearch.tracking.trackio import TrackioTracker
from mergesearch.tracking.wandb import WandbTracker

TRACKERS = Table(
    "mergesearch.trackers",
    TrackerFactory,
    {
        "wandb": TrackerFactory(WandbTracker),
        "trackio": TrackerFactory(TrackioTracker),
        "mlflow": TrackerFactory(MlflowTracker),
    },
)
"""Every tracker by its name on the command line."""
