import io
import tarfile

import pytest

from lightning_llava.data.tar import TAIL_CHUNK, Member, TarDamage, tar_members

END = bytes(1024)


def header(name, size=0, kind=b"0", changes=(), checksum=None):
    """A POSIX ustar header, field by field."""
    block = bytearray(512)
    fields = [(0, name), (100, b"0000644\0"), (108, b"0000000\0"), (116, b"0000000\0")]
    fields += [(124, b"%011o\0" % size), (136, b"%011o\0" % 0), (156, kind)]
    fields += [(257, b"ustar\x0000"), *changes]
    for at, value in fields:
        block[at : at + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % (sum(block) if checksum is None else checksum)
    return bytes(block)


def entry(name, content=b"", kind=b"0", **more):
    padded = content + bytes(-len(content) % 512)
    return header(name, len(content), kind, **more) + padded


def walk(whole):
    """Members, and the damage behind them."""
    found = []
    try:
        found.extend(tar_members(io.BytesIO(whole), len(whole)))
    except TarDamage as damage:
        return found, (damage.at, damage.reason)
    return found, None


def silent_names(whole):
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        return tar.getnames()


A, B = entry(b"a.json", b"first"), entry(b"b.json", b"x" * 600)
MEMBER_A, MEMBER_B = Member("a.json", "file", (512, 5)), Member("b.json", "file", (1536, 600))


def test_a_whole_tar():
    whole = A + B + END
    assert walk(whole) == ([MEMBER_A, MEMBER_B], None)
    assert silent_names(whole) == ["a.json", "b.json"]
    assert walk(END) == ([], None)


@pytest.mark.parametrize("zeros", [512, 1024, 10240, TAIL_CHUNK + 5])
def test_any_padding_behind_the_end(zeros):
    assert walk(A + bytes(zeros)) == ([MEMBER_A], None)


@pytest.mark.parametrize(
    ("whole", "number", "damage"),
    [
        # Cut in the content, by one byte and by all of it.
        ((A + B)[: 1536 + 599], 1, (2135, "the content of 'b.json' ends 1 bytes early")),
        ((A + B)[:1536], 1, (1536, "the content of 'b.json' ends 600 bytes early")),
        ((A + B)[: 1536 + 600], 2, (2136, "the zero blocks that end a tar are missing")),
        # Cut in a header, at a member, in the very last blocks.
        ((A + B)[:1300], 1, (1024, "only 276 of a header's 512 bytes are there")),
        (A, 1, (1024, "the zero blocks that end a tar are missing")),
        (A + B, 2, (2560, "the zero blocks that end a tar are missing")),
        (A + B + bytes(100), 2, (2560, "only 100 of a header's 512 bytes are there")),
        # Damaged headers.
        (A + b"\xa7" * 512 + B + END, 1, (1024, "no tar header: invalid header")),
        (A + header(b"b", checksum=77) + END, 1, (1024, "no tar header: bad checksum")),
        (A + header(b"b", changes=[(124, b"\xff" * 12)]) + END, 1, (1024, "the size -1")),
        # More behind the end.
        (A + END + b"\0\0x" + END, 1, (2050, "the file goes on after the end of the tar")),
        (A + END + A + END, 1, (2048, "the file goes on after the end of the tar")),
        (A + bytes(TAIL_CHUNK + 512) + b"x", 1, (TAIL_CHUNK + 1536, "the file goes on")),
    ],
)
def test_damage_is_found_behind_the_sound_members(whole, number, damage):
    members, (at, reason) = walk(whole)
    assert members == [MEMBER_A, MEMBER_B][:number]
    assert at == damage[0]
    assert damage[1] in reason


def test_the_library_is_silent_about_most_of_that():
    for whole in ((A + B)[:1300], A, A + B, A + b"\xa7" * 512 + B + END, A + END + B + END):
        assert silent_names(whole)[0] == "a.json"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"x", "not a tar (begins with b'x')"),
        (b"\xff\xd8\xff\xe0" * 300, r"not a tar (begins with b'\xff\xd8\xff\xe0\xff"),
        (b"\x1f\x8b\x08" + bytes(900), "compressed with gzip, expected a plain tar: unpack it"),
        (b"BZh91AY" * 100, "compressed with bzip2, "),
        (b"\xfd7zXZ\0" + bytes(900), "compressed with xz, "),
        (b"\x28\xb5\x2f\xfd" * 200, "compressed with zstd, "),
        (b"PK\x03\x04" * 200, "compressed with zip, "),
        (header(b"a", checksum=1) + END, "not a tar (begins with b'a"),
    ],
)
def test_no_tar_at_all(content, reason):
    members, (at, found) = walk(content)
    assert (members, at) == ([], 0)
    assert found.startswith(reason)


def test_kinds_and_the_content_they_have():
    kinds = {
        b"1": "hard link",
        b"2": "symbolic link",
        b"3": "device",
        b"4": "device",
        b"5": "folder",
        b"6": "named pipe",
    }
    for kind, name in kinds.items():
        # Whatever size such a header states, no content follows it.
        whole = header(b"a.jpg", 700, kind, changes=[(157, b"/etc/passwd")]) + A + END
        first, second = walk(whole)[0]
        assert first == Member("a.jpg", name, (512, 0))
        assert second == Member("a.json", "file", (1024, 5))
    for kind in (b"7", b"\0"):
        assert walk(entry(b"a.json", b"first", kind) + END) == ([MEMBER_A], None)
    unknown = Member("v", "member of the unknown type b'V'", (512, 3))
    assert walk(entry(b"v", b"abc", b"V") + END) == ([unknown], None)


def old_sparse(extension):
    """GNU's own sparse file: map in the header, and in a further block if the flag is set."""
    number = b"%011o\0"
    changes = [(257, b"ustar  \0"), (386, number % 0), (398, number % 3), (483, number % 9999)]
    if extension:
        changes.append((482, b"\1"))
    first = header(b"a.jpg", 3, b"S", changes)
    middle = (number % 8000 + number % 0).ljust(512, b"\0") if extension else b""
    return first + middle + b"abc".ljust(512, b"\0")


@pytest.mark.parametrize("extension", [False, True])
def test_old_sparse_files_are_told_and_passed(extension):
    whole = old_sparse(extension) + A + END
    assert silent_names(whole) == ["a.jpg", "a.json"]
    members, damage = walk(whole)
    assert [(m.name, m.kind) for m in members] == [("a.jpg", "sparse file"), ("a.json", "file")]
    assert damage is None
    offset, size = members[1].content
    assert whole[offset : offset + size] == b"first"


def test_a_cut_sparse_map():
    assert walk(old_sparse(True)[:700]) == ([], (700, "cut off inside the map of a sparse file"))


def pax(*records):
    lines = b""
    for key, value in records:
        body = b" " + key + b"=" + value + b"\n"
        length = len(body) + 1
        length += len(str(len(body) + len(str(length)))) - 1
        lines += b"%d" % length + body
    return lines


def test_long_and_foreign_names():
    long = b"folder/" + "ж".encode() * 120 + b".json"
    gnu = entry(b"././@LongLink", long + b"\0", b"L") + entry(long[:100], b"first")
    posix = entry(b"PaxHeaders/0", pax((b"path", long)), b"x") + entry(b"short", b"first")
    prefixed = entry(b"c.json", b"first", changes=[(345, b"folder/deep")])
    names = [long.decode(), long.decode(), "folder/deep/c.json", "a.json"]
    whole = gnu + posix + prefixed + A + END
    assert silent_names(whole) == names
    members, damage = walk(whole)
    assert ([m.name for m in members], damage) == (names, None)
    for offset, size in (m.content for m in members):
        assert whole[offset : offset + size] == b"first"


@pytest.mark.parametrize("style", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_what_the_library_writes(style):
    stream, names = io.BytesIO(), ["a/" * 40 + "x.json", "ü.jpg", "plain.png"]
    if style != tarfile.USTAR_FORMAT:
        names.append("long" * 60 + ".jpg")
    with tarfile.open(fileobj=stream, mode="w", format=style) as tar:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = number * 511, 1.5 if style == tarfile.PAX_FORMAT else 1
            tar.addfile(info, io.BytesIO(bytes([number]) * info.size))
    whole = stream.getvalue()
    members, damage = walk(whole)
    assert ([m.name for m in members], damage) == (names, None)
    for number, (offset, size) in enumerate(m.content for m in members):
        assert whole[offset : offset + size] == bytes([number]) * (number * 511)


def test_pax_states_the_size_and_sparse_files():
    # A file of 8 GiB and more states its size there; here it is small, and the header lies.
    sized = entry(b"x", pax((b"size", b"5")), b"x") + header(b"a.json", 0) + b"first".ljust(512)
    assert [m.content for m in walk(sized + END)[0]] == [(1536, 5)]
    records = pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.name", b"big.jpg"))
    sparse = entry(b"x", records, b"x") + entry(b"GNUSparseFile.0/big.jpg", b"0\n")
    assert walk(sparse + END)[0] == [Member("big.jpg", "sparse file", (1536, 2))]


def test_global_pax_values_hold_for_all_that_follow():
    whole = entry(b"g", pax((b"comment", b"made by git")), b"g") + A + B + END
    assert [m.name for m in walk(whole)[0]] == silent_names(whole) == ["a.json", "b.json"]


@pytest.mark.parametrize(
    ("middle", "reason"),
    [
        (entry(b"x", b"99 path=a\n", b"x") + A, "a pax header that cannot be read"),
        (entry(b"x", b"no length", b"x") + A, "a pax header that cannot be read"),
        (entry(b"x", pax((b"size", b"-5")), b"x") + A, "an extended header with the size '-5'"),
        (entry(b"x", pax((b"path", b"y")), b"x"), "nothing follows an extended header"),
        (header(b"x", 2 << 20, b"x") + A, "an extended header of 2097152 bytes"),
        (header(b"././@LongLink", 5000, b"L") + A, "cut off inside an extended header"),
    ],
)
def test_damaged_extended_headers(middle, reason):
    members, (at, found) = walk(A + middle + END)
    assert members == [MEMBER_A]
    assert found == reason
    assert at > 1024


def test_names_that_are_no_utf8_stay_apart():
    members, _ = walk(entry(b"\xff.json") + entry(b"\xfe.json") + END)
    assert [m.name for m in members] == ["\udcff.json", "\udcfe.json"]


def test_a_lying_size_reads_nothing():
    whole = header(b"a.json", 0, changes=[(124, b"\x80" + bytes(6) + b"\xff" * 5)]) + A + END
    members, (at, reason) = walk(whole)
    assert (members, at) == ([], len(whole))
    assert reason.startswith("the content of 'a.json' ends 10995116")
