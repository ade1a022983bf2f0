"""`CITATION.cff` is one that readers of the format take, of this release, and says what the pages' BibTeX says."""

from __future__ import annotations

import re

import yaml

from loopviz.app.server import citation
from loopviz.paths import PACKAGE
from loopviz.version import repository, version

FILE = yaml.safe_load((PACKAGE.parent / "CITATION.cff").read_text(encoding="utf-8"))
REQUIRED = {"cff-version", "message", "title", "authors"}  # of the Citation File Format 1.2.0
KNOWN = REQUIRED | {
    *("abstract", "commit", "contact", "date-released", "doi", "identifiers", "keywords", "license", "license-url"),
    *(
        "preferred-citation",
        "references",
        "repository",
        "repository-artifact",
        "repository-code",
        "type",
        "url",
        "version",
    ),
}


def test_it_has_the_fields_of_the_format_and_no_others() -> None:
    assert FILE.keys() >= REQUIRED
    assert FILE.keys() <= KNOWN
    assert FILE["cff-version"] == "1.2.0"
    assert FILE["type"] in ("software", "dataset")
    assert FILE["authors"]
    for author in FILE["authors"]:
        assert author.keys() <= {"name", "website", "email", "orcid", "family-names", "given-names", "affiliation"}
        assert author.get("name") or author.get("family-names")
    assert all(isinstance(word, str) for word in FILE["keywords"])
    assert len(set(FILE["keywords"])) == len(FILE["keywords"])


def test_it_is_of_this_release_and_says_what_the_pages_say() -> None:
    assert str(FILE["version"]) == version()
    assert FILE["title"] == citation.TITLE
    assert FILE["license"] == citation.LICENSE
    assert [author["name"] for author in FILE["authors"]] == [citation.AUTHOR]
    assert citation.YEAR in (PACKAGE.parent / "LICENSE").read_text(encoding="utf-8")
    assert FILE.get("repository-code") == repository()


def test_the_bibtex_is_one_entry_with_closed_braces() -> None:
    entry = citation.bibtex()
    assert re.fullmatch(r"@software\{loopviz,\n(  \w+ *= \{.*\},?\n)+\}\n", entry)
    assert entry.count("{") == entry.count("}")
    assert f"{{{version()}}}" in entry
