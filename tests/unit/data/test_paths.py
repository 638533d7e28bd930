"""What people call images: files, folders, tables of paths, a list on stdin."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from carcls.data.paths import images_named, require_images
from carcls.errors import InputError


def test_a_folder_is_all_its_images_and_the_rest_is_counted(tmp_path: Path) -> None:
    """At any depth, in order; hidden files, litter and links that lead back are left out."""
    for name in ("b.JPG", "a.png", "notes.txt", "in/c.webp", "in/deeper/d.tif", "in/.hidden.jpg", "__MACOSX/e.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "in" / "back").symlink_to(tmp_path)
    others = Counter[str]()
    found = list(images_named([str(tmp_path)], (), others))
    assert [Path(name).relative_to(tmp_path).as_posix() for name in found] == [
        *("a.png", "b.JPG", "in/c.webp", "in/deeper/d.tif"),
    ]
    assert others == {".txt": 1}


@pytest.mark.parametrize(
    "text",
    [
        "path\na.jpg\n/x/b.jpg\n",
        "label,Image\nx,a.jpg\ny,/x/b.jpg\nz,\n",
        '\ufefffilename;label\n"a.jpg";"a; b"\n/x/b.jpg;\n',
        "label,Image Path\nx,a.jpg\ny,/x/b.jpg\n",
        "id\tpath\n1\ta.jpg\n2\t/x/b.jpg\n3\n",
    ],
)
def test_a_table_names_images_beside_it(text: str, tmp_path: Path) -> None:
    """Whatever parts its cells, its column of paths is found; they are relative to the table."""
    (tmp_path / "list.csv").write_text(text, encoding="utf-8")
    assert list(images_named([str(tmp_path / "list.csv")], (), Counter())) == [str(tmp_path / "a.jpg"), "/x/b.jpg"]


def test_a_list_and_files_keep_their_order(tmp_path: Path) -> None:
    """A file is taken whatever its name; empty lines are none."""
    (tmp_path / "no suffix").touch()
    words = ["-", str(tmp_path / "no suffix"), "missing.jpg"]
    lines = ["one.jpg\n", "\n", "two words.jpg\r\n"]
    assert list(images_named(words, lines, Counter())) == ["one.jpg", "two words.jpg", *words[1:]]


def test_words_that_name_nothing_are_a_mistake_before_anything_is_loaded(tmp_path: Path) -> None:
    """One of several that is there is enough; a table must have its column."""
    with pytest.raises(InputError, match=r"PATH must name images.*Check the spelling"):
        require_images([str(tmp_path / "nowhere")])
    require_images([str(tmp_path / "nowhere"), str(tmp_path)])
    for content, said in ((b"number,label\n1,x\n", "column path, image or filename"), (b"path\n\xff\n", "UTF-8")):
        (tmp_path / "list.csv").write_bytes(content)
        with pytest.raises(InputError, match=said):
            require_images([str(tmp_path / "list.csv")])
