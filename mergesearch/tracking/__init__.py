"""Trackers of experiments, which are told of a search's trials and of its end."""

from mergesearch.tracking.base import TrackedRun, Tracker, TrackerFactory
from mergesearch.tracking.observer import Tracking
from mergesearch.tracking.table import TRACKERS

__all__ = ["TRACKERS", "TrackedRun", "Tracker", "TrackerFactory", "Tracking"]
