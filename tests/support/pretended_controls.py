"""Controls of the pretended GPU: what it must refuse, count and compute. The last line of the process is JSON, name: passed."""

import copy
import io
import json
import math
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from tests.support.photos import blobs, ring, write_photos
from tests.support.pretend import MixedDevices, PretendedGpu, pretended_gpu
from vision3d.core import native
from vision3d.core.checkpoints import load_checkpoint
from vision3d.core.device import resolve_device, sent
from vision3d.core.errors import DeviceError, InputError, NumericalError
from vision3d.core.progress import silent
from vision3d.geometry import quaternion
from vision3d.io.dataset import load_dataset
from vision3d.optim import losses
from vision3d.optim.adam import SplatAdam
from vision3d.optim.training_views import TrainingViews
from vision3d.render import meshes, render_views
from vision3d.stages.fit import FitConfig, fit
from vision3d.training.late_check import LateCheck

GPU = torch.device("cuda", 0)
CONTROLS: list[Callable[[PretendedGpu], None]] = []


def control(function: Callable[[PretendedGpu], None]) -> Callable[[PretendedGpu], None]:
    CONTROLS.append(function)
    return function


def refused(error: type[Exception], call: Callable[[], Any]) -> None:
    with pytest.raises(error):
        call()


def counted(gpu: PretendedGpu, call: Callable[[], Any], **want: int) -> Any:
    before = gpu.snapshot()
    result = call()
    found = gpu.snapshot() - before
    got = {key: getattr(found, key) for key in ("waits", "to_device", "to_host", "pageable")}
    assert got == {**dict.fromkeys(got, 0), **want}, f"got {got}, want {want}"
    return result


@control
def mixed_operations_are_refused(_gpu):
    here, there = torch.ones(3), torch.ones(3, device="cuda")
    scalar = torch.ones((), device="cuda")
    refused(MixedDevices, lambda: here + there)
    refused(MixedDevices, lambda: there * here)
    refused(MixedDevices, lambda: torch.cat([here, there]))
    refused(MixedDevices, lambda: torch.stack([torch.tensor(1.0), scalar]))
    refused(MixedDevices, lambda: there @ here)
    refused(MixedDevices, lambda: here.add_(scalar))
    refused(MixedDevices, lambda: here + scalar)
    refused(MixedDevices, lambda: torch.where(there > 0, there, here))
    refused(MixedDevices, lambda: torch.searchsorted(there, here))
    refused(MixedDevices, lambda: there.index_select(0, torch.tensor([0])))
    refused(MixedDevices, lambda: here[there > 0])
    refused(MixedDevices, lambda: here[torch.tensor([0], device="cuda")])
    refused(MixedDevices, lambda: torch.nn.functional.mse_loss(there, here))
    refused(MixedDevices, lambda: torch.rand(3, device="cuda", generator=torch.Generator()))
    refused(TypeError, there.numpy)


@control
def what_torch_allows_is_allowed(_gpu):
    there = torch.arange(4.0, device="cuda")
    assert (there * torch.tensor(2.0)).tolist() == [0, 2, 4, 6]
    assert (torch.tensor(2.0) + there).device == GPU
    assert there.clamp(min=1).tolist() == [1, 1, 2, 3]
    assert there[torch.tensor([1, 3])].tolist() == [1, 3]
    there[1:3] = 7
    there[0] = torch.tensor(5.0)
    there[torch.tensor([3])] = torch.tensor(1.0)
    assert there.tolist() == [5, 7, 7, 1]
    assert torch.where(there > 5, there, 0).tolist() == [0, 7, 7, 0]
    assert torch.zeros_like(there, device="cpu").device.type == "cpu"
    assert there.quantile(0.5) == 6 and there.clone().unsqueeze_(0).mT.shape == (4, 1)
    there.copy_(torch.ones(4))
    assert there.tolist() == [1, 1, 1, 1]


@control
def waits_and_copies_are_counted(gpu):
    there = torch.arange(6.0, device="cuda")
    counted(gpu, lambda: there * 2 + 1)
    counted(gpu, lambda: there[2:4].sum())
    counted(gpu, lambda: torch.full((3,), 2.0, device="cuda"))
    counted(gpu, lambda: there.sum().item(), waits=1)
    counted(gpu, lambda: float(there.sum()), waits=1)
    counted(gpu, lambda: bool((there > 2).any()), waits=1)
    counted(gpu, lambda: there[there > 2], waits=1)
    counted(gpu, lambda: there.nonzero(), waits=1)
    counted(gpu, lambda: there.unique(), waits=1)
    counted(gpu, lambda: torch.equal(there, there + 1), waits=1)
    counted(gpu, lambda: there.cpu(), waits=1, to_host=1)
    counted(gpu, lambda: there.tolist(), waits=1, to_host=1)
    counted(gpu, lambda: torch.ones(2).to("cuda"), waits=1, to_device=1, pageable=1)
    counted(gpu, lambda: torch.ones(2).to(there), waits=1, to_device=1, pageable=1)
    counted(gpu, lambda: torch.ones(2).to("cuda", non_blocking=True), waits=1, to_device=1, pageable=1)
    counted(gpu, lambda: torch.ones(2).pin_memory().to("cuda", non_blocking=True), to_device=1)
    counted(gpu, lambda: torch.ones(2).pin_memory().to("cuda"), to_device=1, waits=1)
    counted(gpu, lambda: sent(torch.ones(2), GPU), to_device=1)
    counted(gpu, lambda: torch.tensor([1.0, 2.0], device="cuda"), waits=1, to_device=1, pageable=1)
    counted(gpu, lambda: there.new_tensor([1.0]), waits=1, to_device=1, pageable=1)
    counted(gpu, lambda: there[[0, 2]], waits=1, to_device=1, pageable=1)
    counted(gpu, lambda: there[torch.tensor([0, 2])], waits=1, to_device=1, pageable=1)
    counted(gpu, lambda: torch.linalg.inv(torch.eye(3, device="cuda")), waits=1)
    assert any("nonzero at the test" in place for place in gpu.places)


@control
def copies_that_do_not_block_arrive_with_a_wait(gpu):
    there = torch.arange(3.0, device="cuda")
    early = there.to("cpu", non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    assert early.isnan().all() and not event.query()
    counted(gpu, event.synchronize, waits=1)
    counted(gpu, event.synchronize)
    assert early.tolist() == [0, 1, 2]


@control
def native_calls_are_checked(gpu):
    values = torch.rand(5, 4)
    module = native.require()
    there = values.to("cuda")
    refused(
        MixedDevices, lambda: module.adam_step(there, there, there, values, None, 1e-3, 0.9, 0.99, 1e-8, 1, device=0, stream=0)
    )
    refused(MixedDevices, lambda: module.adam_step(there, there, there, there, None, 1e-3, 0.9, 0.99, 1e-8, 1))
    refused(
        MixedDevices,
        lambda: module.adam_step(values, values, values, values, None, 1e-3, 0.9, 0.99, 1e-8, 1, device=0, stream=0),
    )
    scene, cameras = blobs().to("cuda"), ring(1)
    refused(DeviceError, lambda: next(render_views(scene, cameras)))
    assert native.has_cuda() and resolve_device("auto").type == "cuda"


@control
def images_and_gradients_are_those_of_the_cpu(gpu):
    for mode in ("3dgs", "2dgs"):
        results = []
        for device in ("cpu", "cuda"):
            scene, cameras = replace(blobs(), mode=mode).to(device), ring(1).to(device)
            leaves = (scene.means, scene.sh, scene.opacity_logits)
            for leaf in leaves:
                leaf.requires_grad_()
            image = next(render_views(scene, cameras)).image
            assert image is not None
            weights = torch.linspace(0, 1, image.numel()).view(image.shape).to(device)
            grads = torch.autograd.grad((image * weights).sum(), leaves)
            results.append([image.detach().cpu(), *(grad.cpu() for grad in grads)])
            assert image.device.type == device
        for got, want in zip(*results[::-1]):
            torch.testing.assert_close(got, want, atol=2e-4 * float(want.abs().max()), rtol=1e-3)
    assert gpu.counts.kernels > 8


@control
def gradients_through_views_and_networks(_gpu):
    results = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        network = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
        ).to(device)
        network.load_state_dict(copy.deepcopy(network).state_dict())
        optimizer = torch.optim.Adam(network.parameters(), 1e-2)
        for step in range(3):
            x = torch.randn(6, 4, generator=torch.Generator().manual_seed(step)).to(device)
            y = network(x).clone()
            y[:, 0] *= 2
            y[1:3] = y[1:3] + x[1:3, :2]
            loss = y.square().mean() + torch.nn.functional.pad(y, (1, 1))[:, 1].sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert all(parameter.device.type == device for parameter in network.parameters())
        results.append(torch.cat([parameter.detach().cpu().flatten() for parameter in network.parameters()]))
    torch.testing.assert_close(*results)


@control
def saved_tensors_load_on_the_cpu(_gpu):
    file = io.BytesIO()
    torch.save({"a": torch.arange(3.0, device="cuda")}, file)
    file.seek(0)
    loaded = torch.load(file, map_location="cpu", weights_only=True)["a"]
    assert loaded.tolist() == [0, 1, 2] and type(loaded) is torch.Tensor


@control
def a_late_check_is_read_without_a_wait(gpu):
    check = LateCheck()
    assert check.read() is None
    good, bad = torch.ones(4, device="cuda"), torch.tensor([1.0, math.nan, 3.0]).to("cuda")
    is_valid = counted(gpu, lambda: check.put(3, {"a": good, "b": good}), to_host=1)
    assert bool(is_valid)
    assert counted(gpu, check.read) is None  # the bool above waited
    is_valid = check.put(4, {"a": good, "b": bad, "c": torch.full((2,), math.inf, device="cuda")})
    params = {"x": torch.zeros(3, device="cuda")}
    optimizer = SplatAdam(params, {"x": 0.1})
    params["x"].grad = bad
    optimizer.step(is_valid.expand(3).contiguous())
    assert params["x"].tolist() == [0, 0, 0] and check.read() == (4, "b") and check.read() is None


@control
def indices_are_read_again_only_after_a_change(gpu):
    positions = torch.tensor([[[0.0, 0, 1, 1], [4, 0, 1, 1], [0, 4, 1, 1], [4, 4, 1, 1]]]).to("cuda")
    faces, colors = torch.tensor([[0, 1, 2], [1, 2, 3]]).to("cuda"), torch.rand(4, 3).to("cuda")
    fragments = counted(gpu, lambda: meshes.rasterize(positions, faces, 4, 4), waits=2)
    counted(gpu, lambda: meshes.interpolate(colors, faces, fragments))  # nor the faces of the pixels, which we made
    counted(gpu, lambda: meshes.rasterize(positions, faces, 4, 4))
    faces[1, 2] = 4
    refused(InputError, lambda: meshes.rasterize(positions, faces, 4, 4))
    fragments.face_ids[0, 0, 0] = 2
    faces[1, 2] = 3
    refused(InputError, lambda: meshes.interpolate(colors, faces, fragments))
    refused(InputError, lambda: meshes.rasterize(positions[:, :3], faces, 4, 4))
    counted(gpu, lambda: quaternion.conjugate(quaternion.normalize(torch.zeros(2, 4, device="cuda"))))


@control
def a_fit_stops_a_step_after_a_loss_that_is_not_finite(_gpu):
    for strategy in ("mcmc", "adc"):
        with tempfile.TemporaryDirectory() as name:
            photos, factors = write_photos(Path(name) / "photos"), iter([*[1.0] * 5, math.nan, 1.0])

            def broken(*arguments: Any, factors: Any = factors, photometric: Any = losses.photometric) -> Any:
                return photometric(*arguments) * next(factors)

            config = FitConfig(steps=10, strategy=strategy, max_gaussians=50, pose_opt=True, device="cuda", log_every=1)
            with (
                mock.patch.object(losses, "photometric", broken),
                pytest.raises(NumericalError, match="step 5: the loss is not finite"),
            ):
                fit(config, photos, run_folder=Path(name) / "run", progress=silent)
            assert next(factors, None) is None
            state = load_checkpoint(Path(name) / "run" / "checkpoints" / "step_000006.pt").state["trainee"]
            tensors = [*state["model"]["params"].values(), *state["poses"].values(), *state["strategy"].values()]
            assert all(bool(value.isfinite().all()) for value in tensors if value.is_floating_point())
            steps = [int(value) for key, value in state["model"]["optimizer"].items() if key.endswith(".step")]
            assert steps == [5] * len(steps)


@control
def images_stay_on_the_gpu_within_their_share(gpu):
    with tempfile.TemporaryDirectory() as name:
        images = load_dataset(write_photos(Path(name) / "photos"))
        options = {"masks": True, "with_alpha": False, "cache_bytes": 1e9, "device": GPU}
        views = TrainingViews(images, images.train, **options)
        views.read_all(lambda _done: None)
        first = counted(gpu, lambda: views.get(3, 1), to_device=1)
        again = counted(gpu, lambda: views.get(3, 1))
        assert first.image.device == GPU and first.K.device == GPU and bool((first.image == again.image).all())
        one_image = 48 * 48 * 3
        with mock.patch.object(torch.cuda, "mem_get_info", return_value=(4.5 * one_image, 0)):
            views = TrainingViews(images, images.train, **options)
        views.read_all(lambda _done: None)
        counted(gpu, lambda: [views.get(place, 1) for place in (0, 1, 0, 1)], to_device=3)  # the second does not fit


def main() -> None:
    results = {}
    before = (torch.zeros, torch.Tensor.to, torch.cuda.is_available, native.module())
    for function in CONTROLS:
        try:
            with pretended_gpu() as gpu:
                function(gpu)
            results[function.__name__] = True
        except (Exception, pytest.fail.Exception):
            traceback.print_exc(file=sys.stderr)
            results[function.__name__] = False
    after = (torch.zeros, torch.Tensor.to, torch.cuda.is_available, native.module())
    results["everything_is_restored"] = before == after and "to" not in vars(torch.Tensor)
    sys.stdout.write(json.dumps(results) + "\n")


if __name__ == "__main__":
    main()
