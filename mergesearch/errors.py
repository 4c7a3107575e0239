"""The exceptions that mergesearch raises, in one small tree.

A message states the rule, then the values, then the remedy, in one line.
"""


class MergesearchError(Exception):
    """Root of the tree: anything mergesearch raises; the exit code is 1."""

    exit_code = 1


class InputError(MergesearchError):
    """Something that a user gave and that cannot work; the exit code is 2."""

    exit_code = 2


class CandidateError(MergesearchError):
    """A candidate that cannot be built or scored: its trial fails, the study goes on."""


class ExportMismatchError(MergesearchError):
    """A rebuilt checkpoint differs from the candidate that was scored."""


class RecipeError(InputError):
    """A recipe that cannot be built: a user's stops the run, a search's its trial."""
