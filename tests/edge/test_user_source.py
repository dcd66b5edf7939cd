"""What a user's code is: the files that its imports name, without what changes nothing in it."""

import os
import sys
from pathlib import Path

import pytest

from edge.core.errors import CompressError
from edge.core.user_source import find_source

NET = """
import torch
from blocks import Block
from . import relative

WIDTH = 8

def register(f):
    return f

class Base: ...
PAGE = " "  # two lines to some

class Net(Base):
    \"\"\"A net.\"\"\"
    text = '''
# no comment

'''

@register
def listed(): return WIDTH

def make(): return Net()

def other():
    return by_string("quiet")

def quiet(): ...

if __name__ == "__main__":
    make().eval()
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "nets/__init__.py": "",
        "nets/deep/__init__.py": "from nets.deep import outer\n",
        "nets/deep/net.py": NET,
        "nets/deep/relative.py": "from .. import top\nfrom ..top import x\ndef f():\n    import late.part\n",
        "nets/deep/outer.py": "",
        "nets/top.py": "import os, nets.none\nfrom compress import data\n",
        "late/part.py": "def broken(:\n",
        "blocks.py": "class Block: ...\n",
        "unused.py": "",
        "compress.py": "",
    }.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    return tmp_path


def test_the_files_are_those_that_its_imports_name(here: Path) -> None:
    assert set(find_source("nets.deep.net:make").hashes()) == {
        *("nets/__init__.py", "nets/deep/__init__.py", "nets/deep/net.py", "nets/deep/relative.py"),
        *("nets/deep/outer.py", "nets/top.py", "late/part.py", "blocks.py"),
    }
    assert set(find_source("json.decoder:JSONDecoder").hashes()) >= {"json/__init__.py", "json/decoder.py"}
    assert all(name.startswith("json/") for name in find_source("json.decoder:JSONDecoder").hashes())
    assert find_source("sys:exit").hashes() == {}


CHANGES = [
    ("import torch", "# what it is\n\nimport torch  # from there", False),
    ("WIDTH = 8\n", "WIDTH = 8  # wide\n\n", False),
    ("def quiet(): ...", "def quiet(): return 1", False),
    ('by_string("quiet")', "None", False),
    ("def other():", "def further(): ...\ndef other():", False),
    ("WIDTH = 8", "WIDTH = 9", True),
    ("class Base: ...", "class Base: x = 1", True),
    ("def make(): return Net()", "def make(): return Net() or None", True),
    ("return WIDTH", "return -WIDTH", True),
    ("# no comment\n", "# no  comment\n", True),
    ("'''\n# no", "'''\n\n# no", True),
    ('"""A net."""', '"""A network."""', True),
]


@pytest.mark.parametrize(("old", "new", "noticed"), CHANGES)
def test_what_changes_the_network_is_noticed_and_nothing_else(here: Path, old: str, new: str, noticed: bool) -> None:
    before = find_source("nets.deep.net:make")
    code = before.hashes()
    assert NET.count(old) == 1
    Path("nets/deep/net.py").write_text(NET.replace(old, new))
    assert (find_source("nets.deep.net:make").hashes() != code) == noticed
    if noticed:
        with pytest.raises(
            CompressError, match=r"its code in .* is not that of the stage \(nets/deep/net.py changed\)"
        ):
            find_source("nets.deep.net:make", code=code)


def test_names_made_while_it_runs_mean_the_whole_file(here: Path) -> None:
    assert find_source("nets.deep.net:other").hashes() != find_source("nets.deep.net:make").hashes()
    file = Path("nets/deep/net.py")
    file.write_text(NET.replace("return Net()", "return globals()['N' + 'et']()"))
    code = find_source("nets.deep.net:make").hashes()
    file.write_text(file.read_text().replace("def quiet(): ...", "def quiet(): return 1"))
    assert find_source("nets.deep.net:make").hashes() != code


def test_the_first_place_with_that_code_is_taken(here: Path) -> None:
    code = find_source("blocks:Block").hashes()
    Path("away").mkdir()
    os.chdir("away")
    assert find_source("blocks:Block", code=code, place=here).place == here
    Path("blocks.py").write_text("class Block: x = 1\n")
    assert find_source("blocks:Block").place == here / "away"
    assert find_source("blocks:Block", code=code, place=here).place == here
    Path("blocks.py").write_text((here / "blocks.py").read_text())
    assert find_source("blocks:Block", code=code, place=here).place == here / "away"
    assert "blocks" not in sys.modules
