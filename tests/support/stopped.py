"""Trainings that are stopped in the middle, as by a crash."""

from vision3d.training.network import NetworkTrainer


def stop_once(monkeypatch, marker, step=2):
    """The first training that comes to this step raises MemoryError; `marker` remembers that."""

    def stopped(self, number, progress, own=NetworkTrainer.step):
        if number == step and not marker.exists():
            marker.touch()
            raise MemoryError
        return own(self, number, progress)

    monkeypatch.setattr(NetworkTrainer, "step", stopped)
