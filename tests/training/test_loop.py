"""The training loop of all networks, on a network that learns a line in milliseconds."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.support.stopping import lines
from tests.training.configs import Config
from vision3d.core.checkpoints import load_checkpoint, seed_everything
from vision3d.core.errors import ConfigError, FileFormatError, NumericalError, Vision3DError
from vision3d.core.progress import silent
from vision3d.core.runs import Interrupted, RunFolder, StopSignal
from vision3d.optim.schedules import one_cycle
from vision3d.training import loop as loop_module
from vision3d.training.ema import Ema
from vision3d.training.loop import Evaluation, Loop
from vision3d.training.network import NetworkTrainer

STEPS = 20


class Trainer(NetworkTrainer):
    def __init__(self, **options):
        seed_everything(0)
        network = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
        optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
        self.bad_at = options.pop("bad_at", None)
        super().__init__(network, optimizer, self._loss, lambda p: one_cycle(1e-2, p), ema=Ema(network, 0.9), **options)

    def _loss(self, step):
        x = torch.randn(16, 3)  # from the global generator, whose state a checkpoint must store
        loss = (self.network(x)[:, 0] - x.sum(-1)).square().mean()
        loss = loss * math.nan if step == self.bad_at else loss
        return loss, {"drawn": float(x[0, 0]), "count": 1}


def trained(folder, *, stop_at=None, steps=STEPS, source="a line", trainer=None, **options):
    stop = StopSignal()

    def watch(task, step, total, values):
        stop.requested = step == stop_at

    given = {"log_every": 4, "checkpoint_every": 6, "latest": ("lr",), "callback": watch, "stop": stop, **options}
    loop = Loop("fit", source=source, steps=steps, folder=folder, **given)
    trainer = trainer or Trainer()
    if loop.saved is not None:
        trainer.load_state_dict(loop.saved)
    loop.run(trainer)
    return loop, trainer


def opened(path, **options):
    return RunFolder.create(path, Config(), **options)


def numbers(trainer):
    averages = trainer.ema.averages.values()
    return torch.cat([value.detach().flatten().double() for value in (*trainer.network.state_dict().values(), *averages)])


@pytest.mark.parametrize("stop_at", [1, 4, 6, 13, 19])
def test_a_resumed_run_is_bitwise_equal_to_an_uninterrupted_one(tmp_path, stop_at):
    loop, whole = trained(opened(tmp_path / "whole"))
    assert loop.step == STEPS and loop.seconds > 0 and loop.cpu_s > 0
    with pytest.raises(Interrupted, match=f"fit: stopped after step {stop_at}"):
        trained(opened(tmp_path / "parts"), stop_at=stop_at)
    torch.rand(100)  # generators outside the run do not matter
    resumed, parts = trained(opened(tmp_path / "parts", resume=True))
    assert torch.equal(numbers(parts), numbers(whole))
    assert lines(tmp_path / "parts") == lines(tmp_path / "whole")
    assert resumed.cpu_s > 0 and resumed.step == STEPS


def test_a_line_has_means_sums_and_the_latest(tmp_path):
    trained(opened(tmp_path / "a"), means=("loss",))
    row = lines(tmp_path / "a")[0]
    assert row["step"] == 4 and row["count"] == 4 and row["lr"] == pytest.approx(one_cycle(1e-2, 3 / STEPS))
    trained(opened(tmp_path / "b"))
    assert lines(tmp_path / "b")[0]["count"] == 1
    assert lines(tmp_path / "b")[0]["loss"] == row["loss"]


def test_the_best_checkpoint_is_kept(tmp_path):
    values = iter([3.0, 5.0, math.nan, 4.0, 5.5])
    evaluation = Evaluation(4, lambda: {"psnr": next(values)}, best="psnr")
    loop, _ = trained(opened(tmp_path / "a"), evaluation=evaluation, steps=16)
    assert loop.best == 5.0
    assert load_checkpoint(tmp_path / "a" / "checkpoints" / "best.pt").step == 8
    assert [row["eval_psnr"] for row in lines(tmp_path / "a") if "eval_psnr" in row][:2] == [3.0, 5.0]
    resumed, _ = trained(opened(tmp_path / "a", resume=True), evaluation=evaluation, steps=20)
    assert resumed.best == 5.5 and load_checkpoint(tmp_path / "a" / "checkpoints" / "best.pt").step == 20
    loop, _ = trained(None, evaluation=Evaluation(10, lambda: {"error": 2.0}, best="error", mode="min"))
    assert loop.best == 2.0


def test_a_loss_that_is_not_finite_keeps_the_previous_state(tmp_path):
    with pytest.raises(NumericalError, match="step 9"):
        trained(opened(tmp_path / "a"), trainer=Trainer(bad_at=9))
    checkpoint = load_checkpoint(tmp_path / "a" / "checkpoints" / "step_000009.pt")
    assert all(value.isfinite().all() for value in checkpoint.state["trainee"]["network"].values())


def test_minutes_limit_a_run_over_all_sessions(tmp_path, monkeypatch):
    looks = iter(range(10_000))
    monkeypatch.setattr(loop_module.Clock.__init__.__globals__["time"], "perf_counter", lambda: float(next(looks)))
    loop, _ = trained(opened(tmp_path / "a"), steps=None, minutes=0.5)
    assert 0 < loop.step < 31 and loop.seconds >= 30
    again = Loop("fit", source="a line", minutes=0.5, folder=opened(tmp_path / "a", resume=True))
    assert again.step == loop.step and again.clock.progress(again.step) == 1


def test_minutes_exceeded_before_the_first_step(monkeypatch):
    looks = iter(range(0, 10_000, 100))
    monkeypatch.setattr(loop_module.Clock.__init__.__globals__["time"], "perf_counter", lambda: float(next(looks)))
    with pytest.raises(Vision3DError, match=r"trained 0 steps in --minutes 0\.1; give more minutes"):
        trained(None, steps=None, minutes=0.1)


def test_other_sources_and_other_runs_are_rejected(tmp_path):
    trained(opened(tmp_path / "a"), steps=6)
    with pytest.raises(ConfigError, match=r"DATA: cannot resume .*a, which is a run on a line, with a circle"):
        trained(opened(tmp_path / "a", resume=True), source="a circle")
    folder = opened(tmp_path / "b")
    folder.save_checkpoint(3, {"step": 3})
    with pytest.raises(FileFormatError, match="the checkpoint of step 3 belongs to a different kind of run"):
        trained(folder)
    with pytest.raises(ConfigError, match="tensorboard: needs a run folder"):
        trained(None, tensorboard=True)


def test_a_run_on_the_same_data_under_an_old_description_is_resumed(tmp_path):
    trained(opened(tmp_path / "a"), steps=6)
    loop, _ = trained(opened(tmp_path / "a", resume=True), source="a straight line", old_sources=["a line"])
    assert loop.step == STEPS
    loop, _ = trained(opened(tmp_path / "a", resume=True), source="a straight line")  # its new checkpoints have the new one
    assert loop.saved is not None


def test_large_gradients_are_clipped():
    free, limited = Trainer(), Trainer(clip_norm=1e-3)
    torch.manual_seed(1)
    free.step(0, 0.0)
    torch.manual_seed(1)
    limited.step(0, 0.0)
    norms = [torch.cat([p.grad.flatten() for p in t.network.parameters()]).norm() for t in (free, limited)]
    assert norms[0] > 1e-2 and norms[1] == pytest.approx(1e-3, rel=1e-3)


def test_moving_averages():
    network = nn.Linear(2, 1, bias=False)
    ema = Ema(network, 0.5)
    with torch.no_grad():
        network.weight.fill_(0.0)
    ema = Ema(network, 0.5)
    wanted, decays = 0.0, [2 / 11, 3 / 12, 4 / 13, 0.5 if 5 / 14 > 0.5 else 5 / 14]
    for number, decay in enumerate(decays):
        with torch.no_grad():
            network.weight.fill_(float(number + 1))
        ema.update()
        wanted = decay * wanted + (1 - decay) * (number + 1)
    with ema.applied():
        torch.testing.assert_close(network.weight, torch.full((1, 2), wanted))
    torch.testing.assert_close(network.weight.detach(), torch.full((1, 2), 4.0))
    other = Ema(nn.Linear(2, 1, bias=False), 0.5)
    other.load_state_dict(ema.state_dict())
    assert torch.equal(other.averages["weight"], ema.averages["weight"]) and other.updates == 4


def test_progress_shows_the_steps():
    shown = []
    loop = Loop("fit", source="a line", steps=3, callback=lambda *values: shown.append(values))
    loop.run(Trainer())
    assert [(task, step, total) for task, step, total, _ in shown] == [("fit", 1, 3), ("fit", 2, 3), ("fit", 3, 3)]
    assert shown[0][3].keys() == {"loss"}
    Loop("fit", source="a line", steps=1, callback=silent).run(Trainer())


def test_the_example_of_the_documentation_learns():
    page = Path(__file__).parents[2] / "docs" / "architecture.md"
    code = page.read_text("utf-8").partition("## Training")[2].partition("```python\n")[2].partition("```")[0]
    names = {}
    exec(code, names)
    assert names["loop"].step == 50 and float(names["loss"](0)[0].detach()) < 2
