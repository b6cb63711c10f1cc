"""Checkpoints against kills, full disks and failing writes: whole or absent, last.ckpt always."""

import errno
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
import tracemalloc
from contextlib import contextmanager, suppress
from pathlib import Path

import fsspec
import pytest
import torch
from lightning import Callback, Trainer
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.demos.boring_classes import BoringModel

from lightning_llava.callbacks import Checkpoint
from lightning_llava.callbacks.checkpoint_io import AtomicCheckpointIO, link_atomically
from lightning_llava.errors import SettingError
from lightning_llava.models.checkpoint import read_checkpoint

MEGABYTE = 2**20


def state(value, megabytes=4):
    return {"state_dict": {"weight": torch.full((megabytes * MEGABYTE // 4,), float(value))}}


def value(path):
    """What `state` was given, if the file is whole."""
    weight = read_checkpoint(str(path), "--ckpt_path")["state_dict"]["weight"]
    assert (weight == weight[0]).all()
    return int(weight[0])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class Large(BoringModel):
    """Checkpoints of 4 MB."""

    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.zeros(MEGABYTE))


class Each(Callback):
    """Do something after every micro-batch, before the checkpoint of its step."""

    def __init__(self, action):
        self.action = action

    def on_train_batch_end(self, trainer, *_):
        self.action(trainer.global_step)


def train(folder, steps, *callbacks, ckpt_path=None, checkpoint=None, **settings):
    defaults = {
        "accelerator": "cpu",
        "max_epochs": 1,
        "max_steps": steps,
        "limit_val_batches": 0,
        "num_sanity_val_steps": 0,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": folder,
        "callbacks": [checkpoint or Checkpoint(1, keep=1, dirpath=str(folder)), *callbacks],
    }
    trainer = Trainer(**defaults | settings)
    trainer.fit(Large(), ckpt_path=ckpt_path)
    return trainer


def step_of(path):
    return read_checkpoint(str(path), "--ckpt_path")["global_step"]


# Kills


@pytest.mark.slow
def test_a_kill_at_any_call_of_the_system_leaves_the_old_or_the_new_checkpoint(tmp_path):
    subprocess.run([sys.executable, __file__, "kill", str(tmp_path)], check=True, timeout=300)
    found = []
    for folder in sorted(tmp_path.iterdir(), key=lambda path: int(path.name)):
        found.append(step_of(folder / "last.ckpt"))
        for path in folder.glob("*.ckpt"):  # whatever has a checkpoint's name is one
            step_of(path)
    assert found == sorted(found), "the later it is killed, the newer"
    assert set(found) == {1, 2}
    assert len(found) > 8
    leftovers = list(tmp_path.glob("*/.*"))
    assert leftovers, "some were killed within a file or a link"
    assert all(path.name.endswith(".unfinished") for path in leftovers)
    folder = leftovers[0].parent
    train(folder, 3, ckpt_path=str(folder / "last.ckpt"))
    assert names(folder)[-2:] == ["last.ckpt", "step-000003.ckpt"]
    assert not list(folder.glob(".*"))


CALLS = {"write", "flush", "fsync", "replace", "symlink", "unlink", "remove", "close"}


def die_at(call, folder):
    """Kill this process before that call once there is a first checkpoint."""
    saved, seen = False, 0

    def watch(frame, event, function):
        nonlocal saved, seen
        saved = saved or (folder / "last.ckpt").exists()
        if saved and event == "c_call" and function.__name__ in CALLS:
            seen += 1
            if seen == call:
                os.kill(os.getpid(), signal.SIGKILL)

    return watch


def save_and_die(root):
    """Fork a run of two checkpoints again and again, killed a call later each time."""
    torch.set_num_threads(1)
    for call in range(1, 1000):
        folder = root / str(call)
        if (child := os.fork()) == 0:
            with suppress(BaseException):
                sys.setprofile(die_at(call, folder))
                train(folder, 2)
                os._exit(0)
            os._exit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == 0:
            return
        assert code == -signal.SIGKILL
    raise AssertionError("it never came to an end")


@pytest.mark.parametrize("rounds", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_a_kill_within_a_large_write_leaves_the_file_before(tmp_path, rounds):
    path, draw = tmp_path / "last.ckpt", random.Random(0)
    writer = AtomicCheckpointIO()
    writer.save_checkpoint(state(0, megabytes=64), path)
    interrupted = 0
    for _ in range(rounds):
        before = value(path)
        large = state(before + 1, megabytes=64)
        if (child := os.fork()) == 0:
            writer.save_checkpoint(large, path)
            os._exit(0)
        enough = draw.uniform(0, 64 * MEGABYTE)
        unfinished = tmp_path / f".last.ckpt.{child}.unfinished"
        deadline = time.monotonic() + 5
        while not unfinished.exists() and time.monotonic() < deadline:
            pass
        with suppress(FileNotFoundError):  # it was too fast, then
            while unfinished.stat().st_size < enough:
                pass
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        interrupted += value(path) == before
        assert value(path) in (before, before + 1)
    assert interrupted


# Full disks and failing writes


@contextmanager
def largest_file(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_that_grows_too_large_ends_the_run_in_a_sentence(tmp_path):
    limit = largest_file(MEGABYTE)
    said = (
        r"cannot write the checkpoint '.*step-000003.ckpt' \(File too large\): it takes 4,\d+,\d+ "
        r"bytes, and '.*' has [\d,]+ free; .*checkpoint\.dirpath.*checkpoint\.keep.*continued with "
        r"--ckpt_path .*last.ckpt \(step-000002.ckpt\)"
    )
    try:
        with pytest.raises(SettingError, match=said):
            train(tmp_path, 4, Each(lambda step: limit.__enter__() if step == 3 else None))
    finally:
        limit.__exit__(None, None, None)
    assert names(tmp_path) == ["last.ckpt", "step-000002.ckpt"]
    assert step_of(tmp_path / "last.ckpt") == 2
    resumed = train(tmp_path, 4, ckpt_path=str(tmp_path / "last.ckpt"))
    assert resumed.global_step == step_of(tmp_path / "last.ckpt") == 4


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk takes rights that this process lacks")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_ends_the_run_in_a_sentence_with_its_numbers(small_disk):
    """6 MB for checkpoints of 4 MB: the second finds too little room."""
    with pytest.raises(SettingError, match="No space left on device") as raised:
        train(small_disk, 3)
    numbers = re.findall(r"[\d,]{7,}", str(raised.value))
    size, free = (int(number.replace(",", "")) for number in numbers)
    # The second holds a few words more than the first.
    assert 0 <= size - (small_disk / "step-000001.ckpt").stat().st_size < 1000
    assert free == os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    assert names(small_disk) == ["last.ckpt", "step-000001.ckpt"]
    assert step_of(small_disk / "last.ckpt") == 1


def test_a_first_checkpoint_that_finds_no_room_says_that_nothing_was_saved(tmp_path):
    with largest_file(MEGABYTE), pytest.raises(SettingError, match="No checkpoint was saved"):
        AtomicCheckpointIO().save_checkpoint(state(1), tmp_path / "new" / "step-1.ckpt")
    assert names(tmp_path / "new") == []


def test_what_fails_within_a_file_leaves_the_one_before(tmp_path, monkeypatch):
    path, writer = tmp_path / "a.ckpt", AtomicCheckpointIO()
    writer.save_checkpoint(state(1), path)
    with pytest.raises(Exception, match="pickle"):
        writer.save_checkpoint(state(2) | {"bad": lambda: None}, path)
    assert value(path) == 1

    def broken(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(SettingError, match=r"\(Input/output error\); .*checkpoint\.dirpath"):
        writer.save_checkpoint(state(2), path)
    assert value(path) == 1
    assert names(tmp_path) == ["a.ckpt"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match=r"file/a\.ckpt' \(.*\); .*checkpoint\.dirpath"):
        AtomicCheckpointIO().save_checkpoint(state(1), tmp_path / "file" / "a.ckpt")


# What is written, and how


def test_it_is_what_lightning_writes_without_a_second_copy_in_memory(tmp_path):
    checkpoint = state(1, megabytes=64)
    TorchCheckpointIO().save_checkpoint(checkpoint, tmp_path / "theirs.ckpt")
    tracemalloc.start()
    AtomicCheckpointIO().save_checkpoint(checkpoint, tmp_path / "ours.ckpt")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MEGABYTE
    ours, theirs = ((tmp_path / f"{name}.ckpt").read_bytes() for name in ("ours", "theirs"))
    assert len(ours) == len(theirs)
    assert value(tmp_path / "ours.ckpt") == 1


@pytest.mark.parametrize("share", [0, 0.5, 0.999])
def test_half_a_checkpoint_is_refused(tmp_path, share):
    path = tmp_path / "a.ckpt"
    AtomicCheckpointIO().save_checkpoint(state(1), path)
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(SettingError, match="is damaged, or not a checkpoint of this project"):
        read_checkpoint(str(path), "--ckpt_path")


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harmed",)


def test_loading_runs_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    AtomicCheckpointIO().save_checkpoint({"state_dict": Harmful()}, tmp_path / "a.ckpt")
    with pytest.raises(Exception, match="mkdir"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "a.ckpt", weights_only=False)
    assert not (tmp_path / "harmed").exists()


def test_links_replace_links_files_and_folders(tmp_path):
    link = tmp_path / "last.ckpt"
    for number, make in enumerate((Path.touch, Path.mkdir)):
        target = tmp_path / f"{number}.ckpt"
        target.write_text(str(number))
        link.unlink(missing_ok=True)
        make(link)
        link_atomically(target, link)
        assert str(link.readlink()) == target.name  # relative: the run folder may be moved
    link_atomically(tmp_path / "0.ckpt", link)
    assert link.read_text() == "0"
    assert names(tmp_path) == ["0.ckpt", "1.ckpt", "last.ckpt"]


def test_without_links_last_is_a_copy(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "symlink", refuse)
    train(tmp_path, 3)
    assert names(tmp_path) == ["last.ckpt", "step-000003.ckpt"]
    assert not (tmp_path / "last.ckpt").is_symlink()
    assert step_of(tmp_path / "last.ckpt") == 3


def test_remote_folders_are_left_to_lightning(tmp_path):
    train(tmp_path, 2, checkpoint=Checkpoint(1, keep=1, dirpath="memory://run"))
    files = fsspec.filesystem("memory").ls("/run", detail=False)
    assert sorted(files) == ["/run/last.ckpt", "/run/step-000002.ckpt"]


def test_a_step_that_a_validation_follows_is_saved_first(tmp_path):
    seen = []

    class Look(Callback):
        def on_validation_start(self, *_):
            seen.append(step_of(tmp_path / "last.ckpt"))

    train(
        tmp_path,
        6,
        Look(),
        checkpoint=Checkpoint(100, dirpath=str(tmp_path)),
        limit_val_batches=1,
        val_check_interval=4,
        accumulate_grad_batches=2,
    )
    assert seen == [2, 4, 6]
    assert len(names(tmp_path)) == 4


@pytest.mark.parametrize("micro_batch", [5, 6])
def test_a_run_that_is_told_to_end_saves_its_last_step(tmp_path, micro_batch):
    """As `trainer.max_time` does it: at any micro-batch, without a word to the checkpoint."""

    class Stop(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if batch_idx == micro_batch - 1:
                trainer.should_stop = True

    checkpoint = Checkpoint(100, dirpath=str(tmp_path))
    train(tmp_path, 9, Stop(), checkpoint=checkpoint, accumulate_grad_batches=2)
    assert names(tmp_path) == ["last.ckpt", "step-000003.ckpt"]
    assert step_of(tmp_path / "last.ckpt") == 3


@pytest.mark.slow
def test_a_disk_that_one_rank_finds_full_ends_both(tmp_path):
    command = [sys.executable, "-W", "ignore", __file__, "ranks", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    said = r"rank (\d): cannot write the checkpoint .*step-000002.*\(step-000001.ckpt\)"
    assert sorted(re.findall(said, ended.stderr)) == ["0", "1"]
    assert names(tmp_path) == ["last.ckpt", "step-000001.ckpt"]


def fill_on_two_ranks(folder):
    limit = largest_file(MEGABYTE)
    at_two = Each(lambda step: limit.__enter__() if step == 2 else None)
    try:
        train(folder, 3, at_two, devices=2, strategy="ddp")
    except SettingError as error:
        sys.stderr.write(f"rank {os.environ.get('LOCAL_RANK', 0)}: {error}\n")


if __name__ == "__main__":
    {"kill": save_and_die, "ranks": fill_on_two_ranks}[sys.argv[1]](Path(sys.argv[2]))
