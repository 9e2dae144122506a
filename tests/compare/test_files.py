"""Files are read within limits and written as a whole, whatever happens on the way."""

import errno
import json
import os
from pathlib import Path

import pytest

from lossfit.compare import files
from lossfit.compare.errors import InputError, NotWrittenError


class TestRead:
    """What may be read is a file of limited size."""

    def test_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"abc")
        assert files.read(tmp_path / "a", 3) == b"abc"

    def test_what_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"abc")
        (tmp_path / "link").symlink_to(tmp_path / "a")
        (tmp_path / "folder").mkdir()
        os.mkfifo(tmp_path / "pipe")
        for name, told in (("link", "is a link"), ("folder", "a folder, a pipe"), ("pipe", "a folder, a pipe")):
            with pytest.raises(InputError, match=f"{name}'.*{told}"):
                files.read(tmp_path / name, 100)
        with pytest.raises(FileNotFoundError):
            files.read(tmp_path / "none", 100)

    def test_a_device(self) -> None:
        with pytest.raises(InputError, match="a folder, a pipe or a device"):
            files.read(Path("/dev/zero"), 100)

    def test_a_large_one(self, tmp_path: Path) -> None:
        with (tmp_path / "a").open("wb") as file:
            file.truncate(3 * files.MIB)
        with pytest.raises(InputError, match="to have at most 2 MiB, but it has 3"):
            files.read(tmp_path / "a", 2 * files.MIB)

    def test_folders_inside(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(tmp_path)
        assert files.child(tmp_path, "none") == tmp_path / "none"
        with pytest.raises(InputError, match=r"link' is a link\. Links inside of a folder are not followed"):
            files.child(tmp_path, "link")


class TestJSON:
    """JSON is measured before it is parsed."""

    @pytest.mark.parametrize(
        ("contents", "told"),
        [
            ("[" * 100_000, "nested 100000 deep; at most 64"),
            ('{"a": ' * 65 + "1" + "}" * 65, "nested 65 deep"),
            ('{"a": NaN}', "NaN is no number of JSON"),
            ('{"a": -Infinity}', "-Infinity is no number of JSON"),
            ('{"a": ' + "1" * 5000 + "}", "cannot be read as JSON"),
            ('{"a": "\udcff"}', "cannot be read as JSON"),
            ("", "cannot be read as JSON"),
            ("3", "Expected an object in the file .*, but got int"),
        ],
    )
    def test_what_is_refused(self, tmp_path: Path, contents: str, told: str) -> None:
        (tmp_path / "a.json").write_bytes(contents.encode("utf-8", "surrogateescape"))
        with pytest.raises(InputError, match=told) as caught:
            files.read_json(tmp_path / "a.json")
        assert str(tmp_path / "a.json") in str(caught.value)

    def test_brackets_in_strings_do_not_count(self, tmp_path: Path) -> None:
        contents = {"a": "[" * 200 + '"\\"' + "{" * 200, "b": [[1]]}
        (tmp_path / "a.json").write_text(json.dumps(contents))
        assert files.read_json(tmp_path / "a.json") == contents

    def test_as_deep_as_may_be(self, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_text('{"a": ' * 64 + "1" + "}" * 64)
        assert "a" in files.read_json(tmp_path / "a.json")


class TestWrite:
    """All files or none."""

    def test_several(self, tmp_path: Path) -> None:
        files.write({tmp_path / "a": "ä", tmp_path / "b": b"\x00"})
        assert (tmp_path / "a").read_bytes() == "ä".encode()
        assert (tmp_path / "b").read_bytes() == b"\x00"
        assert files.names_in(tmp_path) == {"a", "b"}

    @pytest.mark.parametrize("name", ["open", "fsync", "replace"])
    @pytest.mark.parametrize("at", range(2))
    def test_a_disk_that_is_full_at_any_step(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, at: int
    ) -> None:
        (tmp_path / "a").write_text("old")
        (tmp_path / "b").write_text("old")
        real, calls = getattr(os, name), 0

        def failing(*arguments: object, **more: object) -> object:
            nonlocal calls
            calls += 1
            if calls == at + 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*arguments, **more)

        with monkeypatch.context() as patch:
            patch.setattr(os, name, failing)
            with pytest.raises(NotWrittenError, match=r"The file '.*' cannot be written: No space left on device\."):
                files.write({tmp_path / "a": "new", tmp_path / "b": "new"})
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
        old = (tmp_path / "b").read_text()
        assert old == "old"
        assert (tmp_path / "a").read_text() == ("new" if (name, at) == ("replace", 1) else "old")

    def test_it_is_on_the_disk_before_it_has_its_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        order: list[str] = []
        for name in ("fsync", "replace"):
            real = getattr(os, name)
            monkeypatch.setattr(os, name, lambda *a, real=real, name=name: (order.append(name), real(*a))[1])
        files.write({tmp_path / "a": "1", tmp_path / "b": "2"})
        assert order == ["fsync", "fsync", "replace", "replace", "fsync"]  # the last one is of the folder

    def test_a_link_is_replaced_and_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "mine").write_text("mine")
        (tmp_path / "link").symlink_to(tmp_path / "mine")
        files.write({tmp_path / "link": "new"})
        assert (tmp_path / "mine").read_text() == "mine"
        assert not (tmp_path / "link").is_symlink()

    def test_what_a_killed_process_left_is_cleared(self, tmp_path: Path) -> None:
        dead = next(n for n in range(400_000, 500_000) if not Path(f"/proc/{n}").exists())
        (tmp_path / f".a.{dead}.partial").write_text("half")
        (tmp_path / f".b.{os.getppid()}.partial").write_text("of one at work")
        (tmp_path / ".c").write_text("mine")
        assert files.names_in(tmp_path) == {".c"}
        assert sorted(path.name for path in tmp_path.iterdir()) == [f".b.{os.getppid()}.partial", ".c"]

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("")
        with pytest.raises(NotWrittenError, match=r"The folder '.*' cannot be made"):
            files.make_folder(tmp_path / "a" / "b")
