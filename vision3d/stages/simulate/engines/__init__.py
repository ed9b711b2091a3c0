"""Engines that move particles: one interface, several implementations."""

from vision3d.stages.simulate.engines.base import ENGINES, Engine, choose_engine, make_engine

__all__ = ["ENGINES", "Engine", "choose_engine", "make_engine"]
