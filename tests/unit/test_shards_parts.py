"""`shards build --part I/N` on several machines and `shards index` make what one build makes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bigtrain.cli.main import main
from bigtrain.data.manifest import Manifest
from bigtrain.data.merging import merge_machines
from bigtrain.data.sources import Skip
from bigtrain.data.verify import verify
from bigtrain.randomness import permutation
from bigtrain.storage import Storage
from tests.unit.made_source import Made, build_made, files_of, unusable


def shards_of(folder: Path) -> dict[str, str]:
    return {name: value for name, value in files_of(folder).items() if not name.startswith("machines/")}


def made_source() -> Made:
    source = Made(trouble=unusable({3, 4}))
    source.skips = [Skip("notes.txt", "not an image")]
    return source


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_parts_together_are_the_whole(count: int, tmp_path: Path) -> None:
    whole = build_made(made_source(), tmp_path / "whole")
    loaded = []
    for number in reversed(range(1, count + 1)):
        source = made_source()
        assert build_made(source, tmp_path / "parts", part=(number, count)) is None
        loaded += source.loaded
    assert sorted(loaded) == list(range(20)), "each image once"
    assert not (tmp_path / "parts/manifest.json").exists()
    merged = merge_machines(Storage(str(tmp_path / "parts")))
    assert merged == whole
    assert merged.hash == whole.hash
    assert shards_of(tmp_path / "parts") == files_of(tmp_path / "whole")
    assert verify(str(tmp_path / "parts")) == []


def test_parts_at_the_same_time(tmp_path: Path) -> None:
    whole = build_made(made_source(), tmp_path / "whole")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: build_made(made_source(), tmp_path / "parts", part=(i, 4)), range(1, 5)))
    assert merge_machines(Storage(str(tmp_path / "parts"))) == whole
    assert shards_of(tmp_path / "parts") == files_of(tmp_path / "whole")


def test_a_part_goes_on_where_it_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def trouble(index: int) -> None:
        if index == permutation(20, 0, "build")[13]:  # in the third shard
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_made(Made(trouble=trouble), tmp_path, part=(1, 2))
    source = Made()
    build_made(source, tmp_path, part=(1, 2))
    assert source.loaded == permutation(20, 0, "build")[12:18].tolist()
    again = Made()
    capsys.readouterr()
    build_made(again, tmp_path, part=(1, 2))
    assert again.loaded == []
    assert "is finished already" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"2 shards of the build are missing \(1, 3\); run .* again with --part 2/2$"):
        merge_machines(Storage(str(tmp_path)))
    build_made(Made(), tmp_path, part=(2, 2))
    (tmp_path / "r8/shard-000002.tar").unlink()
    with pytest.raises(ValueError, match=r"1 shards of the build are missing \(2\); run .* again with --part 1/2$"):
        merge_machines(Storage(str(tmp_path)))
    build_made(Made(), tmp_path, part=(1, 2))
    assert merge_machines(Storage(str(tmp_path))).samples == 20


def test_a_build_without_parts_ends_what_parts_began(tmp_path: Path) -> None:
    build_made(Made(), tmp_path, part=(1, 2))
    source = Made()
    assert build_made(source, tmp_path).samples == 20
    assert len(source.loaded) == 8


def test_a_part_of_another_build_is_refused(tmp_path: Path) -> None:
    build_made(Made(), tmp_path, part=(1, 2))
    with pytest.raises(ValueError, match="holds another build: seed was 0 and is 1 now"):
        build_made(Made(), tmp_path, part=(2, 2), seed=1)
    with pytest.raises(ValueError, match="part"):
        build_made(Made(), tmp_path, part=(3, 2))


def test_no_part_has_an_image(tmp_path: Path) -> None:
    for number in (1, 2):
        build_made(Made(trouble=unusable(set(range(20)))), tmp_path, part=(number, 2))
    with pytest.raises(ValueError, match=r"no image could be used \(20 x unreadable"):
        merge_machines(Storage(str(tmp_path)))
    assert build_made(Made(), tmp_path).samples == 20


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = str(tmp_path / "shards")
    build = ["shards", "build", "digits:", url, "--resolutions=4,8", "--workers=1", "--samples-per-shard=500"]
    assert main([*build, "--part", "2/2"]) == 0
    assert f"when all are, run `bigtrain shards index {url}`" in capsys.readouterr().out
    with pytest.raises(ValueError, match=rf"after builds with --part: `bigtrain shards index {url}`"):
        Manifest.load(url)
    assert main(["shards", "index", url]) == 2
    assert "with --part 1/2" in capsys.readouterr().err
    assert main([*build, "--part", "1/2"]) == 0
    assert main(["shards", "index", url, "--label", "cls"]) == 2
    assert "--label is not for" in capsys.readouterr().err
    assert main(["shards", "index", url]) == 0
    assert "1,797 images in 4 shards at each of the resolutions 4, 8" in capsys.readouterr().out
    assert main(["shards", "verify", url]) == 0
    for wrong in ("0/2", "3/2", "2", "a/b"):
        assert main([*build, "--part", wrong]) == 2
        assert "must be I/N with I from 1 to N" in capsys.readouterr().err
