"""A family of tiny models that learn in minutes, to try a search anywhere.

The family is trained to the same bytes on every processor. Sums in another order, wider registers
and fused products change the last digits of a float64 number, some 1e-16 of it, and training
would make other models of them within some hundred steps. So after each step the weights, which
all else follows from, are rounded to multiples of 2^-20: what processors differ in is gone, unless
a number lies so near to the middle of two multiples that it is rounded apart: over the whole
training, by the differences between sums in other orders, the odds are 2 in 10,000.

What a search makes of the family is the same too unless a document is a tie. Merged weights and
log-likelihoods are float32, whose last digits are the processor's own: a candidate's hash may
differ from machine to machine, and an answer may where two choices are equally likely but for
1e-6 or so, which moves an accuracy by one document and may send the sampler another way.
"""

from mergesearch.demo.family import FamilySize, build_family

__all__ = ["FamilySize", "build_family"]
