"""Native operations in forked and spawned children, and from threads with different thread counts."""

import subprocess
import sys

import pytest

pytest.importorskip("vision3d._native")

# Each in a new process, so that hangs are ended by the timeout and crashes are detected.
HEADER = """
import os, sys, threading
import torch
from torch.utils.data import DataLoader, Dataset
from vision3d.geometry.quaternion import quat_to_rotmat

QUATS = torch.randn(40_000, 4, generator=torch.Generator().manual_seed(0))

def op():
    return quat_to_rotmat(QUATS)

class Rows(Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, index):
        torch.set_num_threads(1 + index % 3)
        return op()[index]

def single_thread(worker):
    torch.set_num_threads(1)

def in_child(function, limit=20):
    child = os.fork()
    if child == 0:
        import signal
        signal.alarm(limit)
        function()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, "the child hung or failed"
"""


def run(body: str, limit: float = 60) -> None:
    result = subprocess.run([sys.executable, "-c", HEADER + body], capture_output=True, text=True, timeout=limit, check=False)
    assert result.returncode == 0, result.stderr[-2000:]


@pytest.mark.parametrize("first_op", ["before", "after"])
@pytest.mark.parametrize("method", ["fork", *(pytest.param(name, marks=pytest.mark.slow) for name in ("spawn", "forkserver"))])
def test_workers_of_a_data_loader(tmp_path, method, first_op):
    script = tmp_path / "load.py"  # spawn imports it again
    script.write_text(
        HEADER
        + f"""
if __name__ == "__main__":
    torch.set_num_threads(3)
    if {first_op == "before"}:
        op()
    for init in (None, single_thread) if "{method}" == "fork" else (single_thread,):
        options = dict(worker_init_fn=init, multiprocessing_context="{method}", timeout=50)
        loader = DataLoader(Rows(), num_workers={2 if method == "fork" else 1}, **options)
        rows = torch.cat(list(loader))
        assert torch.equal(rows, op()[:8])
"""
    )
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr[-2000:]


def test_a_forked_child_runs_and_changes_its_thread_count():
    run("""
def child():
    assert torch.equal(op(), want)
    for threads in (1, 4, 2):
        torch.set_num_threads(threads)
        assert torch.equal(op(), want)

torch.set_num_threads(3)
want = op()
for _ in range(5):
    in_child(child)
    in_child(lambda: in_child(child))
assert torch.equal(op(), want)
""")


def test_fork_while_another_thread_is_in_a_kernel():
    run("""
stop = threading.Event()

def work():
    while not stop.is_set():
        for threads in (2, 3):
            torch.set_num_threads(threads)
            op()

def child():
    torch.set_num_threads(2)
    assert torch.equal(op(), want)

torch.set_num_threads(3)
want = op()
thread = threading.Thread(target=work)
thread.start()
try:
    for _ in range(30):
        in_child(child)
finally:
    stop.set()
    thread.join()
""")


def test_threads_with_different_thread_counts():
    run("""
failed = []

def work(threads):
    torch.set_num_threads(threads)
    for _ in range(200):
        if not torch.equal(op(), want):
            failed.append(threads)

torch.set_num_threads(2)
want = op()
workers = [threading.Thread(target=work, args=(threads,)) for threads in (1, 2, 3, 4)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join(50)
    assert not worker.is_alive(), "hung"
assert not failed
""")
