"""The site builds strictly and without a network; README and root pages link to what is there."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.builders import REPOSITORY, MadeOnce
from tests.docs.pages import PAGES, name_of

pytestmark = pytest.mark.slow

ROOT_PAGES = [page for page in PAGES if page.parent == REPOSITORY]
LOADED = re.compile(
    r"<(?:script|img|iframe|link)\b[^>]*(?:src|href)=\"?(https?:)?//", re.IGNORECASE
)


@pytest.fixture
def site(made_once: MadeOnce) -> Path:
    """The built site, with no dead link and no dead anchor."""

    def build(folder: Path) -> None:
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
        done = subprocess.run(
            command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return made_once("site", build)


def test_every_page_is_built_and_stands_in_the_navigation(site: Path) -> None:
    index = (site / "index.html").read_text(encoding="utf-8")
    pages = [page.relative_to(site).as_posix() for page in site.rglob("*.html")]
    assert len(pages) > 25
    assert [page for page in pages if page != "404.html" and f'href="{page}"' not in index] in (
        [], ["index.html"],
    )  # fmt: skip


def test_no_page_loads_anything_from_the_network(site: Path) -> None:
    loading = [page.name for page in site.rglob("*.html") if LOADED.search(page.read_text("utf-8"))]
    # Where a page holds one, its script is fetched from a public server.
    diagrams = [page.name for page in site.rglob("*.html") if 'class="mermaid"' in page.read_text()]
    assert (loading, diagrams) == ([], [])


@pytest.mark.parametrize("page", ROOT_PAGES, ids=lambda page: page.name)
def test_links_of_the_root_pages_lead_to_files_and_headings(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for link in (link for link in links if not link.startswith("http")):
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors_of(target), link


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_of_the_repository_that_a_page_names_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`((?:gdc|tasks|flows|tests|benchmarks|docs|examples)/[\w./-]*)`", text)
    missing = [name for name in named if not (REPOSITORY / name).exists()]
    assert missing == []


def test_the_readme_has_at_most_200_lines_and_small_pictures() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 200
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", readme)
    assert len(pictures) == 2
    assert all((REPOSITORY / picture).stat().st_size < 200_000 for picture in pictures)


def test_the_lines_of_the_leaderboard_in_the_readme_are_those_of_its_page() -> None:
    page = (REPOSITORY / "docs/results/leaderboard.md").read_text(encoding="utf-8")
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| `(\w+)`[^|]*\|(.+)\|$", readme, re.MULTILINE)
    assert len(shown) == 7
    whole_samples = page.partition("## Its worst window")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \|(.+)\|$", whole_samples, re.MULTILINE))
    # needs, Spearman, ordinary text, AUROC of the top decile
    for score, cells in shown:
        whole = [cell.strip() for cell in rows[score].split("|")]
        assert [cell.strip() for cell in cells.split("|")] == [whole[i] for i in (0, 3, 4, 6)]


def test_the_claims_in_the_readme_are_those_of_their_page() -> None:
    page = (REPOSITORY / "docs/results/paper.md").read_text(encoding="utf-8")
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    # The arm stands on the page alone.
    measured = r"x?([\d.]+) \[([\d.]+), ([\d.]+)\]"
    claim = rf"^\| [^|]+ \| (?:[^|]+ \| )?x?([\d.]+) \| {measured} \| (not \w+|\w+) \|$"
    shown, whole = (re.findall(claim, text, re.MULTILINE) for text in (readme, page))
    assert len(shown) == len(whole) == 7
    for (most, *ours, verdict), (most_there, *theirs, verdict_there) in zip(
        shown, whole, strict=True
    ):
        assert (most, verdict) == (most_there, verdict_there)
        assert [float(x) for x in ours] == pytest.approx([float(x) for x in theirs], abs=6e-4)


def test_the_citation_names_our_version_and_the_paper() -> None:
    citation = YAML(typ="safe").load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert citation["references"][0]["identifiers"][0]["value"] == "arXiv:2509.00083"


def test_the_import_order_on_its_page_is_that_of_the_contract() -> None:
    page = (REPOSITORY / "docs/develop/architecture.md").read_text(encoding="utf-8")
    _, _, rest = page.partition("## Import order")
    told = rest.split("```text\n")[1].split("```")[0].splitlines()
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    assert told == project["tool"]["importlinter"]["contracts"][0]["layers"]


def test_every_package_stands_on_the_map_of_packages() -> None:
    page = (REPOSITORY / "docs/develop/architecture.md").read_text(encoding="utf-8")
    packages = [path.parent.name for path in (REPOSITORY / "gdc").glob("*/__init__.py")]
    assert "scores" in packages
    assert [name for name in packages if f"`gdc/{name}/`" not in page] == []
