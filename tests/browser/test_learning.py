"""What the page teaches: the tour, the glossary; and a loop changed while it runs."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.browser.test_explore import Visit, data, drawn, ended, inside, reached, run, same_as_server, settle

COVERS = """() => {
  const [card, ring] = ['.lv-tour', '.lv-tour-ring'].map((at) => document.querySelector(at).getBoundingClientRect());
  return card.left < ring.right && ring.left < card.right && card.top < ring.bottom && ring.top < card.bottom;
}"""


def place(page: Page) -> str:
    return page.locator(".lv-tour-place").inner_text()


def test_the_tour_can_be_left_resumed_and_gives_the_run_back(visit: Visit) -> None:
    page = visit()
    settle(page, "sampling", "max_new_tokens", 8)
    own = run(page, "Once upon a time")
    ended(page)
    page.get_by_role("button", name="Take the tour").first.click()
    card = page.locator(".lv-tour")
    expect(card).to_be_visible()
    assert data(page, "run") == "recorded"
    seen = {card.locator("h2").inner_text()}
    for _ in range(2):
        page.keyboard.press("Enter")
        page.wait_for_function("() => !document.querySelector('.lv').page.looking")
        seen.add(card.locator("h2").inner_text())
        assert not page.evaluate(COVERS)
    assert len(seen) == 3
    left = place(page)
    page.keyboard.press("Escape")
    expect(card).to_have_count(0)
    page.wait_for_function("own => document.querySelector('.lv').dataset.run === own", arg=own)
    page.get_by_role("button", name="Resume the tour").first.click()
    expect(card).to_be_visible()
    assert place(page) == left
    steps = int(left.split()[-1]) if left.split()[-1].isdigit() else 11
    for _ in range(steps + 1):
        if not card.count():
            break
        card.get_by_role("button").filter(has_not_text="×").last.click()
        page.wait_for_function("() => !document.querySelector('.lv').page.looking")
    expect(card).to_have_count(0)
    page.wait_for_function("own => document.querySelector('.lv').dataset.run === own", arg=own)
    drawn(page)
    same_as_server(page)


def test_the_glossary_opens_where_an_address_points(visit: Visit) -> None:
    page = visit()
    page.get_by_role("button", name="Glossary").first.click()
    sheet = page.get_by_role("dialog", name="Glossary")
    expect(sheet.locator("math").first).to_be_visible()
    everything = sheet.locator("section:visible").count()
    sheet.get_by_role("searchbox").fill("kl")
    expect(sheet.locator("section:visible").first).to_be_visible()
    assert 0 < sheet.locator("section:visible").count() < everything
    sheet.get_by_role("button", name="Close").click()
    expect(sheet).to_have_count(0)
    page.evaluate("location.hash = '#term-kl'")
    expect(page.get_by_role("dialog", name="Glossary").locator(".lv-here")).to_be_visible()


def test_a_loop_is_changed_while_it_runs(visit: Visit) -> None:
    page = visit()
    settle(page, "sampling", "max_new_tokens", 900)
    run(page, "Once upon a time")
    reached(page, 10)
    settle(page, "loop", "loop_count", 6)
    page.wait_for_function("() => document.querySelector('.lv').page.tokens.some((row) => row[1][0] === 6)")
    settle(page, "loop", "block_end", 6)  # the cache was laid out for other layers
    expect(page.locator("#ctl-block_end .info-text")).to_contain_text("For the next run")
    page.click("#lv-stop")
    ended(page, "stopped")
    loops = inside(page, "page.tokens.map((row) => row[1][0])")
    first = loops.index(6)
    assert set(loops[:first]) == {4}
    assert set(loops[first:]) == {6}
    drawn(page)
    same_as_server(page)
    expect(page.locator(".lv-about")).to_contain_text(f"from token {first}: ")
