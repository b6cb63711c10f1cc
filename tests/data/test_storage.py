import multiprocessing
import os
import pickle
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lightning_llava.data import storage as module
from lightning_llava.data.location import printable, scheme
from lightning_llava.data.storage import ShardStorage, Stamp
from lightning_llava.errors import SettingError


@pytest.fixture
def storage(tmp_path):
    return ShardStorage(str(tmp_path / "cache"))


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(bytes(range(256)) * 4)
    return path


def open_descriptors(folder):
    links = (link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink())
    return [str(link) for link in links if link.parent == folder]


def test_reads_what_lies_there(storage, shard):
    content = shard.read_bytes()
    for offset, size in [(0, 1024), (5, 10), (1023, 1), (1000, 0)]:
        assert storage.read(str(shard), offset, size) == content[offset : offset + size]
    with storage.open(str(shard)) as stream:
        assert stream.read(3) == content[:3]
        assert stream.seek(512) == 512
        assert stream.read() == content[512:]


def test_reads_parts_and_the_whole(storage, shard):
    content = shard.read_bytes()
    parts = storage.read_parts(str(shard), [(1000, 24), (0, 2)], storage.stamp(str(shard)))
    assert parts == [content[1000:], content[:2]]
    with storage.whole(str(shard)) as stream:
        assert stream.read() == content


@pytest.mark.parametrize(("offset", "size"), [(1020, 5), (1024, 1), (9999, 1)])
def test_fewer_bytes_than_asked_for_are_an_error(storage, shard, offset, size):
    with pytest.raises(OSError, match=rf"ends at byte {max(offset, 1024)}, expected {size} bytes"):
        storage.read(str(shard), offset, size)


def test_stamp_is_size_and_time_of_change(storage, shard):
    os.utime(shard, ns=(0, 1_234_567_890_123_456_789))
    assert storage.stamp(str(shard)) == Stamp(1024, "1234567890123456789")


def test_a_shard_that_is_not_there_or_no_file(storage, shard, tmp_path):
    for call in (storage.stamp, storage.open, lambda name: storage.read(name, 0, 1)):
        with pytest.raises(FileNotFoundError):
            call(str(tmp_path / "none.tar"))
    with pytest.raises(OSError, match="not a file"):
        storage.stamp(str(tmp_path))
    pipe = tmp_path / "pipe.tar"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="not a file"):
        storage.stamp(str(pipe))


def test_a_change_in_place_is_seen_although_the_file_is_open(storage, shard):
    stamp = storage.stamp(str(shard))
    assert storage.read(str(shard), 1, 1, stamp) == b"\x01"
    with shard.open("r+b") as stream:
        stream.write(b"\xff" * 2)
    os.utime(shard, ns=(0, int(stamp.version) + 1))  # clocks may tick more slowly than tests
    with pytest.raises(OSError, match="changed since it was indexed"):
        storage.read(str(shard), 1, 1, stamp)
    assert storage.read(str(shard), 1, 1) == b"\xff"
    assert storage.read(str(shard), 1, 1, storage.stamp(str(shard))) == b"\xff"


def test_a_change_between_two_parts_is_seen(storage, shard, monkeypatch):
    stamp, read = storage.stamp(str(shard)), os.pread

    def read_and_touch(file, size, offset):
        content = read(file, size, offset)
        os.utime(shard, ns=(0, int(stamp.version) + 1))
        return content

    monkeypatch.setattr(os, "pread", read_and_touch)
    with pytest.raises(OSError, match=r"indexed: 1,024 bytes of .* instead of 1,024 of"):
        storage.read_parts(str(shard), [(0, 2), (1000, 24)], stamp)


def test_a_shard_that_was_cut_changed_before_anything_else(storage, shard):
    stamp = storage.stamp(str(shard))
    os.truncate(shard, 1000)
    os.utime(shard, ns=(0, int(stamp.version)))
    for extents in ([(0, 2)], [(0, 2), (999, 5)]):
        with pytest.raises(OSError, match="changed since it was indexed: 1,000 bytes of"):
            storage.read_parts(str(shard), extents, stamp)


def test_a_shard_that_vanishes_or_is_replaced_while_open_reads_on(storage, shard, tmp_path):
    stamp = storage.stamp(str(shard))
    storage.read(str(shard), 0, 1, stamp)
    other = tmp_path / "other"
    other.write_bytes(b"z" * 1024)
    other.replace(shard)
    assert storage.read(str(shard), 7, 2, stamp) == b"\x07\x08"
    shard.unlink()
    assert storage.read(str(shard), 7, 2, stamp) == b"\x07\x08"
    with pytest.raises(FileNotFoundError):  # in a process that had not opened it
        pickle.loads(pickle.dumps(storage)).read(str(shard), 7, 2, stamp)


def test_a_handle_that_went_stale_is_opened_anew(storage, shard):
    """As on a network disk whose server came back: the file is there, the open one is not."""
    whole = shard.read_bytes()
    assert storage.read(str(shard), 0, 4) == whole[:4]
    unreadable = os.open(os.devnull, os.O_WRONLY)
    os.dup2(unreadable, storage._local._open[str(shard)].number)
    os.close(unreadable)
    with pytest.raises(OSError, match="Bad file descriptor"):
        storage.read(str(shard), 0, 4)
    assert storage.read(str(shard), 0, 4) == whole[:4]


def test_few_files_stay_open_and_those_used_last(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "OPEN_FILES", 3)
    storage = ShardStorage(str(tmp_path))
    paths = [tmp_path / f"{number}.tar" for number in range(5)]
    for path in paths:
        path.write_text(path.name)
    for number in [0, 1, 2, 0, 3, 0, 4]:
        assert storage.read(str(paths[number]), 0, 5) == f"{number}.tar".encode()
    assert sorted(open_descriptors(tmp_path)) == [str(paths[number]) for number in (0, 3, 4)]
    del storage
    assert open_descriptors(tmp_path) == []


def test_a_low_limit_on_open_files_is_kept_away_from(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    assert module._most_open_files() == 16
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    assert module._most_open_files() == module.OPEN_FILES


def test_threads_that_close_one_another_s_files_read_the_right_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "OPEN_FILES", 2)
    storage = ShardStorage(str(tmp_path))
    paths = [tmp_path / f"{number}.tar" for number in range(8)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * 64)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda i: storage.read(str(paths[i % 8]), i % 60, 4), range(4000)))
    assert found == [bytes([i % 8]) * 4 for i in range(4000)]


def test_pickled_it_opens_its_own_files(storage, shard, tmp_path):
    storage.read(str(shard), 0, 1)
    assert open_descriptors(tmp_path) == [str(shard)]
    copy = pickle.loads(pickle.dumps(storage))
    assert open_descriptors(tmp_path) == [str(shard)]
    assert copy.read(str(shard), 9, 1) == b"\x09"
    assert len(open_descriptors(tmp_path)) == 2
    assert copy.cache_dir == storage.cache_dir


def read_much(storage, shard, seed, results):
    content = Path(shard).read_bytes()
    offsets = [(seed * 31 + 7 * i) % 1000 for i in range(500)]
    results.put(all(storage.read(shard, at, 9) == content[at : at + 9] for at in offsets))


def test_forks_share_open_files_without_disturbing_one_another(storage, shard):
    storage.read(str(shard), 0, 1)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    forks = [
        context.Process(target=read_much, args=(storage, str(shard), seed, results))
        for seed in range(2)
    ]
    for fork in forks:
        fork.start()
    read_much(storage, str(shard), 5, results)
    assert [results.get(timeout=30) for _ in range(3)] == [True] * 3
    for fork in forks:
        fork.join()


def test_expands_paths_globs_and_braces(storage, tmp_path):
    for number in [10, 2, 1, 0]:
        (tmp_path / f"x-{number:03d}.tar").touch()
    names = {number: str(tmp_path / f"x-{number:03d}.tar") for number in (0, 1, 2, 10)}
    assert storage.expand(names[2]) == [names[2]]
    assert storage.expand(str(tmp_path / "x-*.tar")) == [names[n] for n in (0, 1, 2, 10)]
    assert storage.expand(str(tmp_path / "x-{000..002}.tar")) == [names[n] for n in (0, 1, 2)]
    assert storage.expand(str(tmp_path / "x-{002,000}.tar")) == [names[0], names[2]]
    assert storage.expand(str(tmp_path / "{x-00*,x-001}.tar")) == [names[n] for n in (0, 1, 2)]
    assert storage.expand(str(tmp_path / "y*.tar")) == []
    assert storage.expand(str(tmp_path / "y-{0..3}.tar")) == []
    assert storage.expand("") == []


def test_a_name_with_braces_or_brackets_is_a_name_first(storage, tmp_path):
    for name in ("{a,b}.tar", "[a].tar"):
        (tmp_path / name).touch()
        assert storage.expand(str(tmp_path / name)) == [str(tmp_path / name)]


def test_home_is_expanded(storage, tmp_path, monkeypatch):
    (tmp_path / "h.tar").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert storage.expand("~/h.tar") == storage.expand("~/*.tar") == [str(tmp_path / "h.tar")]


def test_a_hole_in_a_range_of_shards_is_refused(storage, tmp_path):
    for number in (0, 1, 3):
        (tmp_path / f"x-{number}.tar").touch()
    with pytest.raises(SettingError, match=r"2 of the 5 names .* match nothing, first .*x-2\.tar"):
        storage.expand(str(tmp_path / "x-{0..4}.tar"))


def test_braces_that_do_not_close(storage):
    with pytest.raises(SettingError, match="do not close"):
        storage.expand("x-{0..4.tar")


def test_an_index_lies_beside_its_shard_or_in_the_cache(storage, shard, monkeypatch):
    beside = shard.with_name("a.tar.index.json")
    assert storage.sidecar(str(shard)) == beside
    assert storage.fetch_sidecar(str(shard)) is None
    beside.write_bytes(b"{}")
    assert storage.fetch_sidecar(str(shard)) == b"{}"
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    elsewhere = storage.sidecar(str(shard))
    assert elsewhere.parent == storage.cache_dir / "indexes"
    monkeypatch.chdir(shard.parent)
    assert storage.sidecar("a.tar") == elsewhere
    assert storage.sidecar("b.tar") != elsewhere
    remote = storage.sidecar("http://localhost/a.tar")
    assert remote.parent == storage.cache_dir / "indexes"
    assert remote != elsewhere


def test_the_cache_is_the_user_s_unless_set(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert ShardStorage().cache_dir == tmp_path / "lightning_llava"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert ShardStorage().cache_dir == Path.home() / ".cache" / "lightning_llava"


@pytest.mark.parametrize(
    ("name", "protocol", "printed"),
    [
        ("data/x.tar", "", "data/x.tar"),
        ("a:b.tar", "", "a:b.tar"),
        ("https://h/x.tar", "https", "https://h/x.tar"),
        ("https://me:secret@h:8/d/x.tar?sig=secret", "https", "https://h:8/d/x.tar?…"),
        ("https://me:secr@et@h/x@1.tar", "https", "https://h/x@1.tar"),
        ("https://h?t=secret", "https", "https://h?…"),
        ("s3://bucket/x.tar", "s3", "s3://bucket/x.tar"),
        ("memory:///x.tar", "memory", "memory:///x.tar"),
        ("pipe:curl -H secret x", "pipe", "pipe:…"),
    ],
)
def test_protocols_and_what_is_printed(name, protocol, printed):
    assert scheme(name) == protocol
    assert printable(name) == printed
