"""Tests of reprogram."""

from beartype import BeartypeConf, beartype

# The runtime type checker of the tests: beartype, with PEP 484's rule that an int will do for a float.
checker = beartype(conf=BeartypeConf(is_pep484_tower=True))
