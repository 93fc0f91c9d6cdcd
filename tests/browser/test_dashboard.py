"""The page at ``/`` in a real browser: it shows what is so, at once, and never what was."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from tests.serving import running

from sourcebus.bus import Settle
from sourcebus.dashboard import router as dashboard
from sourcebus.gateway import create_app
from sourcebus.model import Document, Outcome, Source, SourceChanged
from sourcebus.runtime import Runtime, build
from sourcebus.settings import Settings
from sourcebus.testing import running_server

if TYPE_CHECKING:
    from playwright.sync_api import Page

Open = Callable[..., "Page"]

ODD_REF = "sub dir/caf\udce9 \u202e<b>.md"
HOSTILE = "quick </mark><img src=x onerror=\"document.title='owned'\"> brown & fox"

CONTRAST = """() => {
  const rgb = (css) => (css.match(/[\\d.]+/g) ?? []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = (node) => {
    const found = node ? rgb(getComputedStyle(node).backgroundColor) : [255, 255, 255];
    return found.length === 3 || found[3] > 0 ? found : ground(node.parentElement);
  };
  const poor = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = Array.from(node.childNodes).some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.checkVisibility() || node.closest("noscript, .sr")) continue;
    const [a, b] = [light(rgb(getComputedStyle(node).color)), light(ground(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) poor.push(`${node.textContent.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return poor;
}"""


def address(http: httpx.Client) -> str:
    return str(http.base_url)


@pytest.fixture
def filled(runtime: Runtime, folder: Path) -> Runtime:
    """A source with two documents, one of an odd name, and two dead letters; one that is paused; one in trouble."""
    for name in ("docs", "paused one", "trouble"):
        runtime.sources.add(Source(name, "filesystem", {"root": str(folder)}))
    while leases := runtime.bus.claim(10).leases:
        runtime.bus.ack(leases)
    at = runtime.clock.now_ms()
    runtime.catalog.settle(
        [
            Outcome("docs", "guide/a.md", 1, "indexed", at, "v1", documents=[Document(HOSTILE, title="The <i>guide</i>")]),
            Outcome("docs", ODD_REF, 2, "indexed", at, "v1", documents=[Document("an odd name")]),
        ]
    )
    runtime.bus.emit([SourceChanged("docs", "x.pdf"), SourceChanged("docs", "y.pdf")])
    runtime.bus.nack(runtime.bus.claim(10).leases, "damaged at <b>offset</b> 7", how=Settle.HOPELESS)
    runtime.sources.pause("paused one")
    held = {"count": 640, "of": 1000, "sample": ["a.md"], "at_ms": at}
    runtime.catalog.set_state("trouble", error="the folder is not there", held=held)
    return runtime


def source(page: Page, name: str) -> str:
    return page.locator("#sources > li", has_text=name).inner_text()


def test_without_sources_it_says_how_to_add_one(http: httpx.Client, open_page: Open) -> None:
    page = open_page(address(http))
    page.wait_for_selector("#empty")
    assert "sourcebus source add" in page.inner_text("#empty")
    assert page.inner_text("#overall") == "no sources"
    assert page.locator("#dead").is_hidden()


def test_sources_are_shown_with_state_and_numbers_and_follow_without_a_reload(
    http: httpx.Client, filled: Runtime, open_page: Open
) -> None:
    page = open_page(address(http))
    page.wait_for_selector("#sources > li >> nth=2")
    shown = " ".join(source(page, "docs").split())
    assert "nothing waiting" in shown
    assert "given up 2 indexed 2" in shown
    assert "paused" in source(page, "paused one")
    assert "the folder is not there" in source(page, "trouble")
    assert "640 of 1,000" in source(page, "trouble")
    filled.bus.emit([SourceChanged("docs", f"{number}.md") for number in range(1_234)])
    page.locator("#sources > li", has_text="1,234").wait_for()


def test_a_source_that_lacks_workers_and_one_at_its_gate_look_different(
    http: httpx.Client, runtime: Runtime, folder: Path, open_page: Open
) -> None:
    for name in ("gated", "lacking"):
        runtime.sources.add(Source(name, "filesystem", {"root": str(folder)}))
    for lease in runtime.bus.claim(10).leases:
        if lease.source_id == "gated":
            runtime.bus.nack([lease], how=Settle.THROTTLED, wait_ms=3_000_000)
        else:
            runtime.bus.nack([lease], how=Settle.RELEASE)
    page = open_page(address(http))
    page.locator("#sources > li", has_text="gated").filter(has_text="provider said wait, 50 min").wait_for()
    page.locator("#sources > li", has_text="lacking").filter(has_text="ready, no worker is free").wait_for()
    chips = [page.locator("#sources > li", has_text=name).locator(".chip").inner_text() for name in ("gated", "lacking")]
    assert chips == ["waiting", "waiting for a worker"]


def test_progress_says_done_total_rate_and_time_left(http: httpx.Client, filled: Runtime, open_page: Open) -> None:
    began = filled.clock.now_ms() - 10_000
    filled.bus.emit([SourceChanged("docs", f"{number}.md") for number in range(500)])
    filled.catalog.set_state("docs", last_scan_at_ms=began, last_scan={"emitted": 2_000, "began_at_ms": began})
    page = open_page(address(http))
    shown = page.wait_for_selector("#sources .progress:not([hidden]) p")
    assert shown is not None
    assert re.fullmatch(r"1,500 of 2,000 done · \d+ a second · about \d+ s left", shown.inner_text())
    assert page.locator("progress:visible").evaluate("bar => bar.value") == 0.75


def test_search_as_you_type_marks_what_matched_and_runs_no_markup(http: httpx.Client, filled: Runtime, open_page: Open) -> None:
    page = open_page(address(http))
    page.keyboard.press("/")
    page.keyboard.type("brow")
    hit = page.wait_for_selector("#hits > li")
    assert hit is not None
    assert page.locator("#hits mark").all_inner_texts() == ["brown"]
    assert "</mark><img src=x" in hit.inner_text(), "shown as the text that it is"
    assert "The <i>guide</i>" in hit.inner_text()
    assert page.title() != "owned"
    assert page.locator("#hits img").count() == 0
    assert page.url.endswith("?q=brow")
    page.fill("#q", "nowhere")
    page.locator("#found", has_text="Nothing that is indexed matches “nowhere”").wait_for()
    assert page.locator("#hits > li").count() == 0


def test_a_search_has_an_address(http: httpx.Client, filled: Runtime, open_page: Open) -> None:
    page = open_page(address(http) + "?q=odd")
    page.wait_for_selector("#hits > li")
    assert page.input_value("#q") == "odd"


def test_why_tells_the_story_also_of_names_that_are_not_utf8(http: httpx.Client, filled: Runtime, open_page: Open) -> None:
    page = open_page(address(http) + "?q=odd")
    page.click("#hits button")
    page.wait_for_selector("#story[open]")
    assert "indexed" in page.inner_text("#story-lines")
    assert "\\u202e<b>" in page.inner_text("#story-of"), "what cannot be seen is written out"
    page.keyboard.press("Escape")
    page.wait_for_selector("#story", state="hidden")


def test_a_dead_letter_is_replayed_and_dropped_after_asking(http: httpx.Client, filled: Runtime, open_page: Open) -> None:
    page = open_page(address(http))
    letters = page.locator("#letters > li")
    page.wait_for_selector("#letters > li >> nth=1")
    assert "damaged at <b>offset</b> 7" in letters.first.inner_text()
    letters.filter(has_text="x.pdf").get_by_role("button", name="Replay").click()
    letters.filter(has_text="x.pdf").wait_for(state="detached")
    assert filled.bus.peek("docs", "x.pdf").state != "absent"
    letters.filter(has_text="y.pdf").get_by_role("button", name="Drop").click()
    page.wait_for_selector("#confirm[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("#confirm", state="hidden")
    assert len(filled.bus.dead_letters()) == 1, "Escape means no"
    letters.filter(has_text="y.pdf").get_by_role("button", name="Drop").click()
    page.click("#confirm-yes")
    page.wait_for_selector("#dead", state="hidden")
    assert filled.bus.dead_letters() == []


def test_held_deletes_are_applied_after_asking(http: httpx.Client, filled: Runtime, open_page: Open) -> None:
    page = open_page(address(http))
    page.click("button:visible:has-text('Apply the deletes')")
    assert "640 objects of trouble" in page.inner_text("#confirm-text")
    page.click("#confirm-yes")
    page.wait_for_selector("#said:not(:empty)")
    assert filled.catalog.state("trouble").get("release") is True


def test_when_the_bus_goes_away_nothing_old_passes_for_new(settings: Settings, folder: Path, open_page: Open) -> None:
    with running_server() as url:
        runtime = build(settings.model_copy(update={"redis_url": url}))
        runtime.sources.add(Source("docs", "filesystem", {"root": str(folder)}))
        serving = running(create_app(runtime, mount=[dashboard(runtime)]))
        page = open_page(serving.__enter__())
        page.wait_for_selector("#sources > li")
        assert page.inner_text("#as-of") == "live"
        assert page.locator("#banner").is_hidden()
    try:
        page.wait_for_selector("#banner:not([hidden])")
        assert re.search(
            r"event bus does not answer.*read at \d\d:\d\d:\d\d, \d+ s ago, and may be out of date", page.inner_text("#banner")
        )
        assert page.locator("#sources .chip").all_inner_texts() == ["not known now"]
        assert page.inner_text("#overall") == "not known now"
        assert page.inner_text("#as-of").startswith("as of ")
    finally:
        serving.__exit__(None, None, None)
        runtime.close()
    page.locator("#banner", has_text="The gateway does not answer").wait_for()


def test_what_is_missing_is_named_with_its_remedy(http: httpx.Client, open_page: Open) -> None:
    page = open_page(address(http))
    page.wait_for_selector("#ready:not([hidden])")
    assert "celery -A sourcebus.worker beat" in page.inner_text("#ready")


def test_a_hidden_page_asks_nothing(http: httpx.Client, filled: Runtime, open_page: Open) -> None:
    page = open_page(address(http))
    page.wait_for_selector("#sources > li")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    hide = "(hidden) => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true }); }"
    page.evaluate(hide, True)
    page.wait_for_timeout(2_000)  # whatever was under way comes to its end
    asked.clear()
    page.wait_for_timeout(3_500)  # two turns and more: that nothing happens can only be waited for
    assert asked == []
    page.evaluate(hide, False)
    with page.expect_request("**/v1/status"):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_and_can_be_read(http: httpx.Client, filled: Runtime, open_page: Open, width: int, dark: bool) -> None:
    page = open_page(address(http) + "?q=odd", width=width, dark=dark)
    page.wait_for_selector("#hits > li")
    page.wait_for_selector("#letters > li")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CONTRAST) == []
    page.get_by_role("button", name="Drop").first.click()
    assert page.evaluate(CONTRAST) == []


FOCUSED = """() => {
  const node = document.activeElement;
  return node.labels?.[0]?.innerText ?? node.textContent;
}"""


def test_every_control_has_a_name_of_its_own_and_the_keyboard_reaches_it(
    http: httpx.Client, filled: Runtime, open_page: Open
) -> None:
    page = open_page(address(http))
    page.wait_for_selector("#letters > li")
    reached: list[str] = []
    for _ in range(page.locator("a:visible, button:visible, input:visible").count()):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(FOCUSED))
    assert reached[:2] == ["Search what is indexed", "Search"]
    assert {"Replay x.pdf", "Replay y.pdf", "Drop… x.pdf", "Drop… y.pdf"} <= {" ".join(name.split()) for name in reached}
    assert "" not in reached
    assert len(set(reached)) == len(reached), "no two are called the same"
