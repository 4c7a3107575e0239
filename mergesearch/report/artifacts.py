"""Files that go along with a run's model: to the hub, and to trackers."""

from pathlib import Path

from mergesearch.report.entries import entries_of
from mergesearch.report.formats import leaderboard


def artifacts(run: Path) -> dict[str, str]:
    """Write what goes along with a run's model wherever that is shown, by file name.

    Raises:
        InputError: the folder is no run folder.
    """
    from mergesearch.report.page import page  # slow to import

    # a data set's texts are not ours to publish, and paths are nobody's business
    text = page([run], texts=False, paths=False)
    return {"leaderboard.json": leaderboard(entries_of(run), "json"), "report.html": text}
