import multiprocessing
import sys
import tarfile
import time
import warnings
from pathlib import Path

import fsspec
import numpy as np
import pytest
from handmade import write_tar
from range_server import RangeServer

from lightning_llava.data import remote
from lightning_llava.data.range_cache import RangeCache
from lightning_llava.data.storage import ShardStorage, Stamp
from lightning_llava.errors import SettingError

CONTENT = np.random.default_rng(0).bytes(100_000)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.0)


@pytest.fixture
def server():
    with RangeServer() as server:
        server.files["a.tar"] = CONTENT
        yield server


@pytest.fixture
def shard(server):
    return f"{server.url}/a.tar"


@pytest.fixture
def storage(tmp_path):
    return ShardStorage(str(tmp_path / "cache"), cache_gb=0.001)


def disk_use(folder: Path):
    """What the files take, as the disk counts it."""
    return sum(p.stat().st_blocks * 512 for p in folder.rglob("*") if p.is_file())


def test_a_range_is_one_request_and_from_then_on_none(server, shard, storage):
    stamp = storage.stamp(shard)
    assert stamp.size == len(CONTENT)
    assert len(stamp.version) > 10
    server.requests.clear()
    assert storage.read(shard, 500, 1000, stamp) == CONTENT[500:1500]
    assert server.requests == [("/a.tar", "bytes=500-1499")]
    for _ in range(3):
        assert storage.read(shard, 500, 1000, stamp) == CONTENT[500:1500]
    again = ShardStorage(str(storage.cache_dir), cache_gb=0.001)
    assert again.read(shard, 500, 1000, stamp) == CONTENT[500:1500]
    assert len(server.requests) == 1
    assert storage.read(shard, 500, 999, stamp) == CONTENT[500:1499]
    assert storage.read(shard, len(CONTENT) - 1, 1, stamp) == CONTENT[-1:]
    assert storage.read(shard, 7, 0, stamp) == b""
    assert len(server.requests) == 3


def test_without_a_stamp_or_a_version_nothing_is_kept(server, shard, storage):
    for _ in range(2):
        assert storage.read(shard, 5, 5) == CONTENT[5:10]
    server.versions = False
    stamp = storage.stamp(shard)
    assert stamp == Stamp(len(CONTENT), "")
    for _ in range(2):
        assert storage.read(shard, 5, 5, stamp) == CONTENT[5:10]
    assert len(server.requests) == 5


def test_two_errors_of_the_server_are_two_errors_then_bytes(server, shard, storage):
    stamp = storage.stamp(shard)
    server.faults = ["500", "503"]
    for status in (500, 503):
        with pytest.raises(OSError, match=f"{shard}: the server answers {status}"):
            storage.read(shard, 0, 10, stamp)
    assert storage.read(shard, 0, 10, stamp) == CONTENT[:10]


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ("403", PermissionError, "the server refuses"),
        ("404", FileNotFoundError, "no such file"),
        ("cut", OSError, "payload"),
        ("shifted", OSError, "the server sends bytes 11-20, not 10 from 10"),
        ("to file:///etc/passwd", OSError, "file:///etc/passwd"),
        ("to ftp://localhost/a.tar", OSError, "ftp://localhost"),
    ],
)
def test_answers_that_are_not_the_range(server, shard, storage, fault, kind, message):
    stamp = storage.stamp(shard)
    server.faults = [fault]
    with pytest.raises(kind, match=message):
        storage.read(shard, 10, 10, stamp)
    assert storage.read(shard, 10, 10, stamp) == CONTENT[10:20]


def test_reading_past_the_end(shard, storage):
    stamp = storage.stamp(shard)
    with pytest.raises(OSError, match="5 bytes from 99995, expected 10"):
        storage.read(shard, 99_995, 10, stamp)
    with pytest.raises(OSError, match="0 bytes from 100000, expected 1"):
        storage.read(shard, 100_000, 1, stamp)


def test_a_redirect_to_another_file_of_the_server_is_followed(server, shard, storage):
    server.files["b.tar"] = b"elsewhere"
    server.faults = ["to /b.tar"]
    assert storage.read(shard, 0, 4) == b"else"


def test_a_file_changed_on_the_server(server, shard, storage):
    stamp = storage.stamp(shard)
    assert storage.read(shard, 0, 10, stamp) == CONTENT[:10]
    server.files["a.tar"] = CONTENT[::-1]
    with pytest.raises(OSError, match="changed since it was indexed"):
        storage.read(shard, 20, 10, stamp)
    assert storage.read(shard, 0, 10, stamp) == CONTENT[:10]  # the version that was asked for
    now = storage.stamp(shard)
    assert storage.read(shard, 0, 10, now) == CONTENT[::-1][:10]


def test_a_file_that_is_gone_or_empty(server, shard, storage):
    server.files["empty.tar"] = b""
    assert storage.stamp(f"{server.url}/empty.tar").size == 0
    assert storage.open(f"{server.url}/empty.tar").read() == b""
    with pytest.raises(FileNotFoundError):
        storage.stamp(f"{server.url}/none.tar")
    with pytest.raises(FileNotFoundError):
        storage.open(f"{server.url}/none.tar")


def test_a_server_that_is_not_there(shard, server, storage):
    server.shutdown()
    server.server_close()
    with pytest.raises(OSError, match=r"127\.0\.0\.1"):
        storage.stamp(shard)


def test_a_server_without_ranges_is_refused_before_it_sends_everything(server, shard, storage):
    server.ranges = False
    with pytest.raises(SettingError, match="answers a range request with the whole file"):
        storage.stamp(shard)
    with pytest.raises(SettingError, match="answers a range request with the whole file"):
        storage.read(shard, 5, 5)
    assert storage.read(shard, 0, len(CONTENT)) == CONTENT  # all of it was asked for


def test_a_sequential_pass_goes_in_blocks(server, storage, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "BLOCK", 10_000)
    members = [(f"{n}.png", CONTENT[n * 900 : n * 900 + 800 * n]) for n in range(10)]
    server.files["t.tar"] = write_tar(tmp_path / "t.tar", *members).read_bytes()
    with storage.open(f"{server.url}/t.tar") as stream:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            assert [(m.name, tar.extractfile(m).read()) for m in tar] == members
        assert stream.seek(-5, 2) == len(server.files["t.tar"]) - 5
        assert stream.read() == bytes(5)
        assert stream.seek(512) == 512
        assert stream.read(20_000) == server.files["t.tar"][512:20_512]
    sizes = [1 + b - a for a, b in (map(int, r[6:].split("-")) for _, r in server.requests)]
    assert sizes.pop(0) == 1
    assert max(sizes) <= 20_000
    assert len(sizes) < 15
    assert not (storage.cache_dir / "ranges").exists()


def test_a_change_in_the_middle_of_a_pass(server, shard, storage, monkeypatch):
    monkeypatch.setattr(remote, "BLOCK", 10_000)
    stream = storage.open(shard)
    assert stream.read(10) == CONTENT[:10]
    server.files["a.tar"] = CONTENT[::-1]
    stream.seek(50_000)
    with pytest.raises(OSError, match="changed since"):
        stream.read(10)


def test_an_index_beside_the_shard_is_fetched(server, shard, storage):
    assert storage.fetch_sidecar(shard) is None
    server.files["a.tar.index.json"] = b'{"a": 1}'
    assert storage.fetch_sidecar(shard) == b'{"a": 1}'
    assert storage.fetch_sidecar(f"{shard}?sig=1") == b'{"a": 1}'
    assert server.requests[-1][0] == "/a.tar.index.json?sig=1"
    server.faults = ["500"] * 4
    with pytest.raises(OSError, match="500"):
        storage.fetch_sidecar(shard)


def test_a_pass_asks_again_after_errors_that_may_pass(server, shard, storage, monkeypatch):
    monkeypatch.setattr(remote, "BLOCK", 60_000)
    server.faults = ["503", "500", "503", "", "cut", "cut", "500", "", "500"]
    assert storage.open(shard).read() == CONTENT
    assert len(server.requests) == 4 + 4 + 2
    server.faults = ["503"] * 4
    with pytest.raises(OSError, match="503"):
        storage.stamp(shard)
    assert server.faults == []


def test_near_parts_are_one_request(server, shard, storage):
    stamp = storage.stamp(shard)
    server.requests.clear()
    extents = [(5000, 100), (4000, 50), (5600, 0), (5500, 20)]
    expected = [CONTENT[offset : offset + size] for offset, size in extents]
    for _ in range(2):
        assert storage.read_parts(shard, extents, stamp) == expected
    assert server.requests == [("/a.tar", "bytes=4000-5599")]
    far = [(0, 5), (99_000, 7)]
    assert storage.read_parts(shard, far, stamp) == [CONTENT[:5], CONTENT[99_000:99_007]]
    assert len(server.requests) == 3
    assert storage.read_parts(shard, [], stamp) == []


@pytest.mark.parametrize("ranges", [True, False])
def test_a_whole_shard_is_copied_with_or_without_ranges(server, shard, storage, ranges):
    server.ranges = ranges
    with storage.whole(shard) as stream:
        assert stream.read() == CONTENT
        assert stream.seek(7) == 7
        assert [path.name for path in storage.cache_dir.iterdir()] == []
    server.faults = ["", "404"] if not ranges else ["404"]
    with pytest.raises(OSError, match="404"), storage.whole(shard):
        pass


def test_the_cache_keeps_its_bound_and_what_was_used_last(tmp_path):
    bound = 40 * 4096
    cache = RangeCache(tmp_path / "c", bound)
    payloads = {f"key {n}": bytes([n]) * (3000 + 5 * n) for n in range(200)}
    for key, payload in payloads.items():
        cache.put(key, payload)
        assert cache.get(key) == payload
        assert cache.get("key 0") == payloads["key 0"]  # used all the time, so never thrown out
        assert disk_use(tmp_path / "c") - 4096 <= bound  # 4096: the ledger
        time.sleep(0.001)
    kept = [n for n in range(1, 200) if cache.get(f"key {n}") is not None]
    assert kept == list(range(200 - len(kept), 200))
    assert len(kept) >= 30


def test_the_total_survives_what_happens_to_the_ledger(tmp_path):
    cache = RangeCache(tmp_path, 20 * 4096)
    for number in range(15):
        cache.put(str(number), b"x" * 4000)
    for wrong in (b"", b"garbage", b"%020d" % 10**15):
        (tmp_path / "used").write_bytes(wrong)
        for number in range(30):
            cache.put(f"{wrong!r} {number}", b"x" * 4000)
            assert cache.get(f"{wrong!r} {number}") is not None
        assert disk_use(tmp_path) <= 21 * 4096


def test_a_range_beyond_the_bound_is_not_kept(tmp_path):
    cache = RangeCache(tmp_path, 8192)
    cache.put("small", b"x")
    cache.put("large", b"x" * 8192)
    assert (cache.get("small"), cache.get("large")) == (b"x", None)
    nothing = RangeCache(tmp_path / "none", 0)
    nothing.put("small", b"x")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("harm", ["cut", "empty", "zeros", "flip"])
def test_a_damaged_file_of_the_cache_is_read_again(server, shard, storage, harm):
    stamp = storage.stamp(shard)
    storage.read(shard, 0, 1000, stamp)
    [file] = [p for p in (storage.cache_dir / "ranges").glob("*/*") if p.is_file()]
    content = file.read_bytes()
    flipped = bytes([content[0] ^ 1]) + content[1:]
    harmed = {"cut": content[:500], "empty": b"", "zeros": bytes(1004), "flip": flipped}
    file.write_bytes(harmed[harm])
    server.requests.clear()
    assert storage.read(shard, 0, 1000, stamp) == CONTENT[:1000]
    assert len(server.requests) == 1
    assert storage.read(shard, 0, 1000, stamp) == CONTENT[:1000]
    assert len(server.requests) == 1


def test_files_deleted_by_someone_else_are_read_again(server, shard, storage):
    stamp = storage.stamp(shard)
    for _ in range(2):
        assert storage.read(shard, 0, 1000, stamp) == CONTENT[:1000]
        for file in (storage.cache_dir / "ranges").glob("*/*"):
            file.unlink()
    assert len(server.requests) == 3


def test_a_full_disk_costs_the_cache_and_nothing_else(server, shard, storage, monkeypatch):
    def full(self, content):
        raise OSError(28, "No space left on device")

    stamp = storage.stamp(shard)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.warns(UserWarning, match="cannot be written .*No space left"):
        assert storage.read(shard, 0, 10, stamp) == CONTENT[:10]
    with warnings.catch_warnings(action="error"):  # said once
        assert storage.read(shard, 0, 10, stamp) == CONTENT[:10]
    assert not [p for p in (storage.cache_dir / "ranges").glob("*/*") if p.is_file()]


def read_all(storage, shard, stamp, seed, results):
    offsets = np.random.default_rng(seed).permutation(200) * 500
    found = [storage.read(shard, int(at), 500, stamp) == CONTENT[at : at + 500] for at in offsets]
    results.put((all(found), disk_use(storage.cache_dir / "ranges")))


def test_two_forked_processes_share_a_cache_too_small_for_both(server, shard, tmp_path):
    bound = 60 * 4096  # of the 200 blocks that they read
    storage = ShardStorage(str(tmp_path), cache_gb=bound / 1e9)
    stamp = storage.stamp(shard)
    assert storage.read(shard, 0, 500, stamp) == CONTENT[:500]  # connected before the fork
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    forks = [
        context.Process(target=read_all, args=(storage, shard, stamp, seed, results))
        for seed in range(2)
    ]
    for fork in forks:
        fork.start()
    found = [results.get(timeout=60) for _ in forks]
    for fork in forks:
        fork.join(timeout=30)
        assert fork.exitcode == 0
    assert all(right for right, _ in found)
    assert max(use for _, use in found) <= bound + 2 * 4096  # the ledger, and a file half written
    assert storage.read(shard, 99_000, 500, stamp) == CONTENT[99_000:99_500]  # still connected


def test_a_spawned_process_reads_what_another_has_cached(server, shard, storage):
    stamp = storage.stamp(shard)
    storage.read(shard, 0, 10, stamp)
    server.requests.clear()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(storage.read, (shard, 0, 10, stamp)) == CONTENT[:10]
        assert server.requests == []
        assert pool.apply(storage.read, (shard, 1, 10, stamp)) == CONTENT[1:11]


@pytest.fixture
def memory():
    fs = fsspec.filesystem("memory")
    for name in ("x-0.tar", "x-1.tar", "y.tar"):
        fs.pipe_file(f"/shards/{name}", CONTENT)
    yield fs
    fs.rm("/shards", recursive=True)


def test_another_file_system_of_fsspec(memory, storage, monkeypatch):
    shard = "memory://shards/x-0.tar"
    stamp = storage.stamp(shard)
    assert stamp.size == len(CONTENT)
    assert storage.read(shard, 500, 10, stamp) == CONTENT[500:510]
    assert storage.open(shard).read() == CONTENT
    with pytest.raises(OSError, match="5 bytes from 99995, expected 10"):
        storage.read(shard, 99_995, 10, stamp)
    monkeypatch.setattr(remote, "RECHECK_SECONDS", 0.0)
    memory.pipe_file("/shards/x-0.tar", CONTENT[::-1])
    with pytest.raises(OSError, match=r"memory://shards/x-0\.tar: changed since"):
        storage.read(shard, 0, 10, stamp)
    assert storage.read(shard, 500, 10, stamp) == CONTENT[500:510]  # cached, of that version
    with pytest.raises(FileNotFoundError, match=r"memory://shards/z\.tar"):
        storage.stamp("memory://shards/z.tar")
    with pytest.raises(OSError, match="not a file"):
        storage.stamp("memory://shards")
    assert storage.fetch_sidecar(shard) is None
    memory.pipe_file("/shards/x-0.tar.index.json", b"{}")
    assert storage.fetch_sidecar(shard) == b"{}"


def test_expands_globs_and_braces(memory, server, storage):
    names = ["memory:///shards/x-0.tar", "memory:///shards/x-1.tar"]
    assert storage.expand("memory://shards/x-*.tar") == names
    assert storage.expand("memory:///shards/x-{0..1}.tar") == names
    assert storage.expand("memory://shards/z-*.tar") == []
    server.files["b.tar"] = b""
    assert storage.expand(f"{server.url}/*.tar") == [f"{server.url}/{n}.tar" for n in "ab"]
    signed = f"{server.url}/a.tar?sig=x*"
    assert storage.expand(signed) == [signed]
    server.faults = ["500"]
    with pytest.raises(OSError, match=r"127\.0\.0\.1"):
        storage.expand(f"{server.url}/*.tar")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pipe:cat x.tar", "would run a shell command"),
        ("nosuch://h/x.tar", "unknown protocol 'nosuch'"),
        ("file:///etc/passwd", "protocol 'file'"),
        ("reference://x.json", "protocol 'reference'"),
        ("simplecache::http://localhost/x.tar", "simplecache"),
        ("http://localhost/x.zip::file:///etc", "leads through"),
    ],
)
def test_ways_that_are_refused(storage, name, message):
    for call in (storage.expand, storage.stamp, storage.open, storage.fetch_sidecar):
        with pytest.raises(SettingError, match=message):
            call(name)


def test_a_missing_package_is_named(storage, monkeypatch):
    with pytest.raises(SettingError, match="s3fs"):  # not among what the tests install
        storage.stamp("s3://bucket/x.tar")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(SettingError, match=r"pip install 'lightning-llava\[data\]'"):
        storage.stamp("http://localhost/x.tar")


def test_logins_are_sent_and_never_shown(server, storage):
    shard = server.url.replace("//", "//me:pass@") + "/a.tar?sig=token"
    assert storage.read(shard, 0, 5) == CONTENT[:5]
    assert server.headers[-1]["Authorization"].startswith("Basic ")
    assert server.requests[-1][0] == "/a.tar?sig=token"
    messages = []
    for fault in ("500", "403", "404", "cut", "to file:///x?sig=token", "to http://me:pass@h:0/"):
        server.faults = [fault]
        with pytest.raises(OSError, match=r"127\.0\.0\.1") as error:
            storage.read(shard, 0, 5)
        messages.append(str(error.value))
    server.ranges = False
    with pytest.raises(SettingError) as error:
        storage.read(shard, 0, 5)
    messages.append(str(error.value))
    assert not [m for m in messages if "pass" in m or "token" in m]
