"""The kinds of statistics: what each takes, and of which models it is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of statistics, as a method's row names it."""

    #: Answers that a text counts: a forward pass is one, with the backward pass three.
    n_answers: int = 1
    #: A symmetric matrix of each input of linear layers; else of the tensor's own shape, or a row.
    is_symmetric: bool = False
    #: Depends on all models together, and not on each by itself.
    is_joint: bool = False


#: Every kind by its name in `Method.statistics`; "activation" is AIM's, of the base.
KINDS = {
    "gram": Kind(is_symmetric=True),
    # through the parents' layer, and through the merged one
    "merged gram": Kind(n_answers=2, is_symmetric=True, is_joint=True),
    "fisher": Kind(n_answers=3),
    "activation": Kind(),
}
