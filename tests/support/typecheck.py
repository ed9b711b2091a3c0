"""The run-time type checker of the tests."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int does where a float is wanted, as everywhere in Python
