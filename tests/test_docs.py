"""The documentation's snippets run, and its reference holds what is public."""

import doctest
import inspect
import re
from pathlib import Path

import pytest

import skl_softmax
import skl_softmax.dask
import skl_softmax.displays

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted([DOCS / "index.rst", *(DOCS / "guide").glob("*.rst")])
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_snippets_run(page):
    failed, _ = doctest.testfile(str(page), module_relative=False, optionflags=FLAGS, encoding="utf-8")
    assert failed == 0


def test_every_page_has_its_place():
    listed = re.findall(r"^   (\w+)$", (DOCS / "guide" / "index.rst").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted(listed) == sorted(page.stem for page in PAGES if page.stem != "index")


def test_reference_holds_what_is_public():
    listed = set(re.findall(r"^   (\w+)$", (DOCS / "api.rst").read_text(encoding="utf-8"), flags=re.MULTILINE))
    names = [*skl_softmax.__all__, *skl_softmax.displays.__all__, *skl_softmax.dask.__all__]
    assert {name for name in names if not name.startswith("_")} <= listed


def public_methods():
    for module in (skl_softmax, skl_softmax.displays, skl_softmax.dask):
        for public in filter(inspect.isclass, map(module.__dict__.get, module.__all__)):
            for name, method in inspect.getmembers(public, callable):
                is_public = not name.startswith("_") and name != "get_metadata_routing"
                if is_public and method.__module__.startswith("skl_softmax"):
                    yield pytest.param(method, id=f"{public.__name__}.{name}")


@pytest.mark.parametrize("method", list(public_methods()))
def test_public_methods_say_what_they_raise(method):
    assert "Raises\n" in inspect.getdoc(method)
