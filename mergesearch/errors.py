"""The exceptions that mergesearch raises, in one small tree.

A message states the rule, then the values, then the remedy, in one line.
"""


class MergesearchError(Exception):
    """Root of the tree: anything mergesearch itself raises. The command line exits with code 1."""

    exit_code = 1


class InputError(MergesearchError):
    """Something the user gave cannot work. The command line exits with code 2."""

    exit_code = 2


class CandidateError(MergesearchError):
    """One candidate cannot be built or scored: its trial fails, and the study goes on."""


class ExportMismatchError(MergesearchError):
    """A rebuilt checkpoint differs from the candidate that was scored."""


class RecipeError(InputError):
    """A recipe that cannot be built: given by a user it stops the run, by a search its trial."""
