"""A configuration for runs of tests."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    seed: int = 0
