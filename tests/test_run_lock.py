"""One process at a time in a run folder."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest

from vision3d.core.atomic import remove_leftovers
from vision3d.core.errors import OutputExistsError, RunInUseError
from vision3d.core.run_lock import LOCK_FILE, Owner, RunLock
from vision3d.core.runs import RunFolder


@dataclass(frozen=True)
class Config:
    steps: int = 3
    seed: int = 0


_WORKER = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job in the background ignores it
from tests.test_run_lock import Config
from vision3d.core.errors import OutputExistsError
from vision3d.core.runs import RunFolder
try:
    run = RunFolder.create(sys.argv[1], Config())
except OutputExistsError:
    print("refused", flush=True)
    raise SystemExit
run.log(1, loss=0.5)
print("works", flush=True)
time.sleep(float(sys.argv[2]))
"""


def worker(folder, seconds=120.0):
    """A process with an active run in the folder."""
    command = [sys.executable, "-c", _WORKER, str(folder), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def content(folder):
    return {path.relative_to(folder): (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.rglob("*.*"))}


def lock_of(folder, **changes):
    """Writes the lock of another process."""
    values = {**vars(Owner.current()), **changes}
    (folder / LOCK_FILE).write_text(json.dumps(values))


@pytest.fixture
def run(tmp_path):
    """The folder of a finished run."""
    folder = RunFolder.create(tmp_path / "run", Config())
    folder.log(1, loss=0.5)
    folder.unlock()
    assert not (tmp_path / "run" / LOCK_FILE).exists()
    return tmp_path / "run"


@pytest.mark.parametrize("options", [{"overwrite": True}, {"resume": True}])
def test_a_folder_in_use_is_rejected_and_unchanged(tmp_path, options):
    process = worker(tmp_path / "run")
    try:
        assert process.stdout.readline() == "works\n"
        before = content(tmp_path / "run")
        with pytest.raises(
            RunInUseError, match=rf"run: in use by process {process.pid} since 2.*; wait for it, stop it"
        ) as found:
            RunFolder.create(tmp_path / "run", Config(), **options)
        assert found.value.exit_code == 5 and isinstance(found.value, OutputExistsError)
        assert content(tmp_path / "run") == before
    finally:
        process.kill()  # not waited for yet: a zombie
    while Owner.read((tmp_path / "run" / LOCK_FILE).read_bytes()).has_ended() is False:
        time.sleep(0.05)
    RunFolder.create(tmp_path / "run", Config(), **options).unlock()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_ended_leaves_no_valid_lock(tmp_path, number):
    process = worker(tmp_path / "run")
    assert process.stdout.readline() == "works\n"
    process.send_signal(number)
    process.communicate()
    assert process.returncode != 0  # ended by the signal
    RunFolder.create(tmp_path / "run", Config(), resume=True).unlock()


def test_the_lock_is_removed_with_the_process(tmp_path):
    process = worker(tmp_path / "run", 0.0)
    process.communicate()
    assert not (tmp_path / "run" / LOCK_FILE).exists()


def test_one_of_several_processes_gets_a_new_folder(tmp_path):
    processes = [worker(tmp_path / "run", 8.0) for _ in range(3)]
    answers = sorted(process.communicate(timeout=120)[0] for process in processes)
    assert answers == ["refused\n", "refused\n", "works\n"]


@pytest.mark.parametrize(
    "changes",
    [
        {"pid": 2**22 + 1},  # above the maximum on Linux
        {"pid": 2**70},
        {"pid": os.getppid(), "started": "another boot 123"},  # its number was reused
    ],
)
def test_a_stale_lock_is_replaced(run, changes):
    lock_of(run, **changes)
    RunFolder.create(run, Config(), resume=True)
    assert Owner.read((run / LOCK_FILE).read_bytes()).is_this_process()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"pid": "1", "host": "a", "started": null, "since": ""}'])
def test_a_damaged_lock_is_replaced(run, text):
    (run / LOCK_FILE).write_text(text)
    RunFolder.create(run, Config(), overwrite=True)
    assert Owner.read((run / LOCK_FILE).read_bytes()).is_this_process()


def test_a_live_process_without_a_start_time_counts(run):
    """If the system does not provide start times, the process number is sufficient."""
    lock_of(run, pid=os.getppid(), started=None)
    with pytest.raises(RunInUseError, match="in use by process"):
        RunFolder.create(run, Config(), resume=True)


def test_the_lock_of_another_host_counts_until_it_is_removed(run):
    lock_of(run, host="elsewhere", pid=2**22 + 1)
    before = content(run)
    text = rf"in use by process \d+ on elsewhere since 2.*; if that process has ended, remove {run / LOCK_FILE}, else use"
    with pytest.raises(RunInUseError, match=text):
        RunFolder.create(run, Config(), overwrite=True)
    assert content(run) == before
    (run / LOCK_FILE).unlink()
    RunFolder.create(run, Config(), overwrite=True)


def test_the_same_process_can_lock_it_again(run):
    first = RunFolder.create(run, Config(), resume=True)
    second = RunFolder.create(run, Config(), resume=True)
    first.unlock()
    first.unlock()  # repeated unlocks are harmless
    assert (run / LOCK_FILE).exists()
    second.unlock()
    assert not (run / LOCK_FILE).exists()


def test_a_fork_does_not_remove_its_parents_lock(run):
    lock = RunLock(run)
    lock.acquire()
    code = "import sys; from pathlib import Path; from vision3d.core.run_lock import _remove; _remove(Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, str(run / LOCK_FILE)], check=True)
    assert (run / LOCK_FILE).exists()
    lock.release()


def test_a_deleted_folder_object_removes_its_lock(tmp_path):
    folder = RunFolder.create(tmp_path / "new" / "run", Config())
    assert folder.drop_unused() and not (tmp_path / "new").exists()
    assert folder.drop_unused()


def test_temporary_files_of_a_killed_run_are_removed_on_resume(run):
    (run / "renders").mkdir()
    for name in (".scene.0123abcd.tmp.ply", "renders/.0001.0123abcd.tmp.png", ".config.0123abcd.tmp", "renders/kept.tmp.png"):
        (run / name).write_text("half")
    (run / ".frames.0123abcd.tmp.zarr").mkdir()
    (run / ".frames.0123abcd.tmp.zarr" / "0.0.0").write_text("half")
    # Killed between the two renames that replace a folder: the previous folder is restored.
    (run / ".old.0123abcd.old.zarr").mkdir()
    (run / ".old.0123abcd.old.zarr" / "0.0.0").write_text("whole")
    RunFolder.create(run, Config(), resume=True).unlock()
    names = {str(path.relative_to(run)) for path in run.rglob("*")}
    assert names == {"config.yaml", "metrics.jsonl", "renders", "renders/kept.tmp.png", "old.zarr", "old.zarr/0.0.0"}
    assert remove_leftovers(run) == 0


def test_temporary_files_are_recognized_by_name(tmp_path):
    from vision3d.core.atomic import atomic_folder, atomic_write

    names = []
    for name in ("a.tar.gz", "noend", "b.png"):
        with atomic_write(tmp_path / name) as temporary:
            names.append(temporary.name)
            temporary.write_text("x")
    with atomic_folder(tmp_path / "c.zarr") as temporary:
        names.append(temporary.name)
        temporary.mkdir()
    (tmp_path / "below").mkdir()
    for name in names:
        (tmp_path / "below" / name).write_text("x")
    assert remove_leftovers(tmp_path) == 4
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.tar.gz", "b.png", "below", "c.zarr", "noend"]
