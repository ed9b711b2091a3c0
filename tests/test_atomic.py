import errno
import os

import pytest

from vision3d.core import atomic
from vision3d.core.atomic import atomic_folder, atomic_write
from vision3d.core.errors import Vision3DError


def test_the_file_appears_only_when_complete(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("text")
        assert not path.exists() and temporary.parent == path.parent and temporary.suffix == ".txt"
    assert path.read_text() == "text" and os.listdir(path.parent) == ["file.txt"]


def test_an_error_keeps_the_previous_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("earlier")

    def write_half():
        with atomic_write(path) as temporary:
            temporary.write_text("hal")
            raise KeyError("f")

    with pytest.raises(KeyError):
        write_half()
    assert path.read_text() == "earlier" and os.listdir(tmp_path) == ["file.txt"]


def test_a_full_disk_is_one_error_line(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(Vision3DError, match=r"file\.txt: could not be written \(No space left on device\); no file was"):
        write(path)
    path.write_text("earlier")
    with pytest.raises(Vision3DError, match="the previous file is unchanged"):
        write(path)
    assert path.read_text() == "earlier" and os.listdir(tmp_path) == ["file.txt"]


def write(path):
    with atomic_write(path) as temporary:
        temporary.write_text("new")


def test_other_errors_keep_their_type(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "file.txt"):  # nothing was written
        pass


def test_a_folder_in_the_way(tmp_path):
    (tmp_path / "file.txt").mkdir()
    with pytest.raises(Vision3DError, match=r"file\.txt: could not be written \(Is a directory\)"):
        write(tmp_path / "file.txt")
    (tmp_path / "plain").write_text("a file")
    with pytest.raises(Vision3DError, match=r"plain: the folder could not be created \(File exists\)"):
        write(tmp_path / "plain" / "file.txt")
    assert sorted(os.listdir(tmp_path)) == ["file.txt", "plain"]


def test_a_folder_without_permission(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(atomic.os, "replace", refuse)
    with pytest.raises(Vision3DError, match=r"file\.txt: could not be written \(Permission denied\)"):
        write(tmp_path / "file.txt")
    assert not os.listdir(tmp_path)


def fill(path, name, text):
    with atomic_folder(path) as folder:
        folder.mkdir()
        (folder / name).write_text(text())


def test_a_folder_is_complete_or_absent(tmp_path):
    fill(tmp_path / "frames", "a", lambda: "1")
    with pytest.raises(ZeroDivisionError):
        fill(tmp_path / "frames", "b", lambda: str(1 / 0))
    assert [path.name for path in tmp_path.rglob("*")] == ["frames", "a"]
    fill(tmp_path / "frames", "c", lambda: "2")
    assert [path.name for path in tmp_path.rglob("*")] == ["frames", "c"]


def test_the_previous_folder_is_restored_if_the_new_one_cannot_be_moved(tmp_path):
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "a").write_text("1")
    with pytest.raises(FileNotFoundError), atomic_folder(tmp_path / "frames"):
        pass  # nothing was written
    assert [path.name for path in tmp_path.rglob("*")] == ["frames", "a"]
