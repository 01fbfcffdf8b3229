"""The web page in headless Chromium, against real keys and feedback and a scripted model (page_support)."""

from __future__ import annotations

import re
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import page_support as s
import pytest

import appliance.serve.page
from appliance.core.home import Home, open_home
from appliance.security import keys
from appliance.serve import review

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
sync_api = pytest.importorskip("playwright.sync_api", reason="the page is tested with playwright")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here to test the page with")


@dataclass
class Seen:
    """One open page, and all it did: requests as address and body, what it printed, rules it broke."""

    page: Any
    site: s.Scripted
    url: str
    key: str
    requests: list[str] = field(default_factory=list)
    printed: list[str] = field(default_factory=list)

    def open(self) -> None:
        self.page.goto(self.url)
        self.page.get_by_label("API key").fill(self.key)
        self.page.get_by_role("button", name="Open").click()
        self.page.get_by_label("Your question").wait_for()

    def ask(self, question: str) -> Any:
        """Ask by keyboard; the turn that came of it, ended."""
        turn = self.begin(question)
        self.page.get_by_role("button", name="Ask").wait_for()
        return turn

    def begin(self, question: str) -> Any:
        self.page.get_by_label("Your question").fill(question)
        self.page.keyboard.press("Enter")
        return self.page.locator("article.turn").last


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[s.Scripted, str]]:
    site = s.Scripted(open_home(tmp_path_factory.mktemp("page")))
    with s.running(site.app()) as url:
        yield site, url


@pytest.fixture
def seen(browser: Any, served: tuple[s.Scripted, str], tmp_path: Path) -> Iterator[Seen]:
    site, url = served
    home = open_home(tmp_path / "site")
    site.begin(home)
    context = browser.new_context(viewport={"width": 360, "height": 740})
    context.set_default_timeout(8000)
    page = context.new_page()
    found = Seen(page=page, site=site, url=url, key=keys.new_key(home, "tests", "tests")[1])
    page.on("request", lambda request: found.requests.append(f"{request.url} {request.post_data or ''}"))
    page.on("console", lambda message: found.printed.append(message.text))
    page.on("pageerror", lambda problem: found.printed.append(str(problem)))
    page.add_init_script(
        "document.addEventListener('securitypolicyviolation',"
        " (event) => console.log('csp ' + event.violatedDirective))"
    )
    yield found
    context.close()


def test_an_answer_grows_ends_and_leaves_no_trace_but_the_key_of_this_tab(seen: Seen) -> None:
    seen.open()
    turn = seen.begin("endless")
    said = turn.locator(".said")
    sync_api.expect(said).to_contain_text("word3 ")
    early = said.inner_text()
    sync_api.expect(said).to_contain_text("word9 ")
    assert early.strip() in said.inner_text() and len(said.inner_text()) > len(early)
    seen.page.get_by_role("button", name="Stop").click()
    sync_api.expect(turn.locator(".about")).to_contain_text("stopped")
    stopped = said.inner_text()

    turn = seen.ask("and now?")
    sync_api.expect(turn.locator(".said")).to_have_text("It is a test.")
    assert "cancelled" in seen.site.ended, "the endpoint was not told to stop"
    asked = seen.site.asked[-1]
    assert [each["role"] for each in asked["messages"]] == ["user", "assistant", "user"]
    assert asked["messages"][1]["content"].strip() == stopped.strip()
    assert asked["stream"] is True and "collections" not in asked

    seen.page.reload()
    sync_api.expect(seen.page.get_by_label("Your question")).to_be_visible()
    assert seen.page.locator("article.turn").count() == 0
    kept = "[Object.entries(localStorage), Object.entries(sessionStorage), document.cookie, location.href]"
    assert seen.page.evaluate(kept) == [[], [["cloister-key", seen.key]], "", seen.url + "/"]
    assert not any(seen.key in request for request in seen.requests)
    assert all(request.startswith((seen.url + "/", "data:")) for request in seen.requests)
    assert seen.printed == []

    seen.page.get_by_role("button", name="Lock").click()
    assert seen.page.evaluate("sessionStorage.length") == 0
    sync_api.expect(seen.page.get_by_label("API key")).to_be_focused()
    assert seen.page.get_by_label("API key").input_value() == ""


def test_what_the_model_and_its_sources_say_stays_text(seen: Seen) -> None:
    seen.open()
    turn = seen.ask("hostile")
    sync_api.expect(turn.locator(".said")).to_have_text(f"{s.HOSTILE} 1")
    sync_api.expect(turn.locator(".citation")).to_contain_text(s.HOSTILE)
    sync_api.expect(turn.locator(".unsupported li")).to_have_text(s.HOSTILE)
    turn = seen.ask(s.HOSTILE)
    sync_api.expect(turn.locator(".asked")).to_have_text(s.HOSTILE)
    assert seen.page.locator("#log :is(img, script, b)").count() == 0
    assert seen.page.title() == "Cloister"
    assert seen.printed == []


def test_the_rules_of_the_page_hold_even_if_markup_got_in(seen: Seen) -> None:
    """The header is the second wall: without it this script and this picture would run and load."""
    seen.page.goto(seen.url)
    seen.page.evaluate("html => { document.getElementById('log').innerHTML = html; }", s.HOSTILE)
    seen.page.evaluate("() => { new Image().src = 'http://127.0.0.2:9/x.png'; }")
    seen.page.wait_for_timeout(200)
    assert seen.page.title() == "Cloister"
    assert {"csp script-src-attr", "csp img-src"} <= set(seen.printed)


def test_a_citation_opens_the_passage_and_the_person_is_told_what_is_not_private(seen: Seen) -> None:
    seen.open()
    notice = seen.page.get_by_text("not protected by differential privacy").locator("visible=true")
    assert notice.count() == 0
    seen.page.locator("#documents summary").click()
    seen.page.get_by_label("policies (12 files)").check()
    sync_api.expect(notice).to_have_count(1)
    turn = seen.ask("leave?")
    assert seen.site.asked[-1]["collections"] == ["policies"]
    sync_api.expect(notice).to_have_count(2)
    sync_api.expect(turn.locator(".unsupported li")).to_have_text("Ask your lead first.")
    sync_api.expect(turn.locator(".said")).to_contain_text("first [2].")  # no source of that number

    citation = turn.get_by_role("button", name="quote found")
    citation.focus()
    seen.page.keyboard.press("Enter")
    sync_api.expect(seen.page.locator("#passage mark")).to_have_text(s.CITED["quote"])
    assert seen.page.locator("#passage-text").inner_text() == "".join(
        s.PASSAGE[part] for part in ("before", "text", "after")
    )
    assert f"/v1/passages?address={s.ADDRESS.replace('/', '%2F').replace('#', '%23')}" in seen.requests[-1]
    sync_api.expect(seen.page.get_by_role("heading", name="policies/leave.md, page 3")).to_be_focused()
    seen.page.keyboard.press("Escape")
    sync_api.expect(seen.page.locator("#passage")).to_be_hidden()
    sync_api.expect(citation).to_be_focused()
    assert seen.printed == []


def test_a_doubtful_passage_is_called_so(seen: Seen) -> None:
    seen.site.cited = s.CITED | {"verified": False, "quote": "40 days of leave", "page": None}
    seen.site.passage = s.PASSAGE | {"stale": True}
    seen.open()
    seen.page.locator("#documents summary").click()
    seen.page.get_by_label("policies (12 files)").check()
    seen.ask("leave?").get_by_role("button", name="quote not found").click()
    sync_api.expect(seen.page.locator("#passage mark")).to_have_text(s.PASSAGE["text"])
    note = seen.page.locator("#passage-note")
    sync_api.expect(note).to_contain_text("were not found in this passage")
    sync_api.expect(note).to_contain_text("has changed since")


@pytest.mark.parametrize("collections", [None, []])
def test_without_documents_nothing_speaks_of_them(seen: Seen, collections: list[Any] | None) -> None:
    seen.site.collections = collections
    seen.open()
    sync_api.expect(seen.page.locator("#documents")).to_be_hidden()


def test_a_label_shows_how_sure_it_is(seen: Seen) -> None:
    seen.open()
    turn = seen.ask("label")
    sync_api.expect(turn.locator(".percent")).to_have_text("87 % sure")
    bar = turn.get_by_role("meter")
    share = bar.evaluate("bar => bar.firstElementChild.offsetWidth / bar.offsetWidth")
    assert share == pytest.approx(0.87, abs=0.02)


def test_thumb_marks_and_correction_reach_the_store(seen: Seen) -> None:
    seen.open()
    turn = seen.ask("hello")
    turn.get_by_role("button", name="Poor answer").click()
    sync_api.expect(turn.locator(".thanks")).to_contain_text("Kept for review")
    (said,) = review.list_feedback(seen.site.home)
    assert (said.thumb, said.corrected, said.ratings, said.model) == (-1, False, {}, "inbox-int8")

    turn.get_by_role("button", name="Rate or correct").click()
    marks = turn.get_by_role("group", name="Complete, 1 to 5")
    marks.get_by_label("1", exact=True).focus()
    seen.page.keyboard.press("ArrowRight")
    turn.get_by_label("What should the answer have been?").fill("It was a <b>test</b>.")
    with seen.page.expect_response("**/v1/feedback"):
        turn.get_by_role("button", name="Send feedback").click()
    sync_api.expect(turn.locator(".thanks")).to_contain_text("Kept for review")
    (said,) = review.list_feedback(seen.site.home)
    _, words = review.read_feedback(seen.site.home, said.id)
    assert (said.thumb, said.corrected, said.ratings) == (-1, True, {"complete": 2})
    assert words.messages == ({"role": "user", "content": "hello"},)
    assert (words.text, words.correction) == ("It is a test.", "It was a <b>test</b>.")
    assert seen.printed == []


def test_a_wrong_key_is_told_and_not_kept(seen: Seen) -> None:
    seen.page.goto(seen.url)
    seen.page.get_by_label("API key").fill("clo_wrong")
    seen.page.keyboard.press("Enter")
    sync_api.expect(seen.page.get_by_role("alert").first).to_contain_text("wrong, expired or revoked")
    assert seen.page.evaluate("sessionStorage.length") == 0
    sync_api.expect(seen.page.get_by_label("Your question")).to_be_hidden()


def test_a_key_revoked_meanwhile_locks_the_page(seen: Seen) -> None:
    seen.open()
    seen.ask("hello")
    keys.revoke(seen.site.home, seen.key.split("_")[1], "tests")
    seen.begin("again")
    sync_api.expect(seen.page.get_by_role("alert").first).to_contain_text("wrong, expired or revoked")
    assert seen.page.locator("article.turn").count() == 0
    assert seen.page.evaluate("sessionStorage.length") == 0


@pytest.mark.parametrize(
    ("refusal", "told"),
    [
        ((429, {"retry-after": "7"}), "Wait 7 s"),
        ((503, {}), "may be starting"),
        ((500, {}), "The endpoint failed"),
        ((413, {}), "too long"),
        (None, "cut off before its end"),
    ],
)
def test_a_failure_is_told_in_plain_words_and_the_question_is_not_lost(
    seen: Seen, refusal: tuple[int, dict[str, str]] | None, told: str
) -> None:
    seen.open()
    seen.site.refusal = refusal
    turn = seen.ask("cut")
    sync_api.expect(turn.get_by_role("alert")).to_contain_text(told)
    assert seen.page.get_by_label("Your question").input_value() == "cut"
    seen.site.refusal = None
    turn = seen.ask("hello")
    sync_api.expect(turn.locator(".said")).to_have_text("It is a test.")
    assert [each["content"] for each in seen.site.asked[-1]["messages"]] == ["hello"]


def test_it_fits_a_narrow_screen_and_every_control_has_a_name(seen: Seen) -> None:
    seen.open()
    seen.page.locator("#documents summary").click()
    turn = seen.ask("leave?" + "x" * 200)
    turn.get_by_role("button", name="Rate or correct").click()
    assert seen.page.evaluate("document.documentElement.scrollWidth") == 360
    assert seen.page.evaluate("document.getElementById('log').scrollWidth") == 360
    nameless = """[...document.querySelectorAll('button, input, select, textarea')].filter((each) =>
        !(each.getAttribute('aria-label') || each.labels?.length || each.textContent.trim())).length"""
    assert seen.page.evaluate(nameless) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser: Any, served: tuple[s.Scripted, str], scheme: str) -> None:
    """WCAG 2.1, 1.4.3: at least 4.5 to 1, for each colour of text on each ground it is used on."""
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto(served[1])
    read = "name => getComputedStyle(document.documentElement).getPropertyValue(name).trim()"
    pairs = [(ink, ground) for ink in ("ink", "dim", "main", "bad") for ground in ("ground", "sheet")]
    for ink, ground in [*pairs, ("ink", "soft"), ("main", "soft"), ("on-main", "main"), ("ink", "mark")]:
        high, low = sorted((_light(page.evaluate(read, f"--{name}")) for name in (ink, ground)), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, ground)
    context.close()


def _light(colour: str) -> float:
    """Relative luminance as WCAG 2.1 defines it."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_words_on_disk_are_private(seen: Seen, home: Home) -> None:
    seen.open()
    seen.ask("hello").get_by_role("button", name="Good answer").click()
    sync_api.expect(seen.page.locator(".thanks")).to_contain_text("Kept for review")
    (file,) = seen.site.home.feedback.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert b"hello" not in seen.site.home.database.read_bytes()


def test_the_files_name_nothing_outside_and_never_write_markup() -> None:
    folder = Path(appliance.serve.page.__file__).parent
    files = [file for file in folder.iterdir() if file.suffix in (".html", ".css", ".js")]
    assert len(files) == 5
    for file in files:
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(
            r"https?:|//[a-z]|innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", text
        ), file
        assert not re.search(r"console\.|localStorage|document\.cookie|\son\w+=|style=", text), file
