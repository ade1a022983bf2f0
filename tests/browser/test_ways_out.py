"""What is refused, or cannot be shown, says what to do and has a button that does it (A24, A26)."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.browser.test_explore import (
    Visit,
    data,
    drawn,
    ended,
    inside,
    run,
    same_as_server,
    settle,
    show,
)

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
MODEL = "#ctl-model input"


def another_run(page: Page, before: str) -> None:
    page.wait_for_function("run => !['', run].includes(document.querySelector('.lv').dataset.run)", arg=before)


def norm_refused(page: Page) -> None:
    """Ask for what this model was not trained with, and close the group that holds the control."""
    page.click("#lv-group-step .label-wrap")
    page.check("#ctl-loop_norm input")
    page.click("#lv-group-step .label-wrap")
    expect(page.locator("#ctl-loop_norm")).to_be_hidden()
    page.click("#lv-run")


def test_a24_the_instrument_s_panel_runs_the_model_it_speaks_of(visit: Visit) -> None:
    page = visit()
    settle(page, "sampling", "max_new_tokens", 6)
    settle(page, "loop", "loop_count", 3)  # of another model; glassbox comes with its own
    before = run(page)
    ended(page)
    show(page, "instrument")
    panel = page.locator(".lv-panel[data-panel=instrument]")
    assert inside(page, "page.panels.get('instrument').figure?.data.length ?? 0") == 0
    panel.get_by_role("button", name="Run glassbox and check it").click()
    another_run(page, before)
    ended(page)
    drawn(page)
    expect(page.locator(".lv-about")).to_contain_text("glassbox")
    expect(page.locator(MODEL)).to_have_value("glassbox")
    expect(page.locator("#ctl-prompt textarea")).to_have_value("a")  # a suggestion gives way to a suggestion
    expect(page.locator("#ctl-loop_count input[type=number]")).not_to_have_value("3")
    assert inside(page, "page.panels.get('instrument').figure.data.length") > 0
    expect(panel.locator(".lv-act")).to_be_hidden()
    same_as_server(page)


def test_a24_on_a_phone_a_refusal_opens_the_settings_too(visit: Visit) -> None:
    page = visit(**PHONE)
    page.locator(".lv-sheet-open").click()
    norm_refused(page)
    expect(page.locator("#ctl-loop_norm")).to_be_in_viewport()
    expect(page.locator("#ctl-loop_norm")).to_contain_text("no learned norm")


def test_a24_a_refusal_opens_the_closed_group_of_its_control_and_offers_a_model_that_has_it(visit: Visit) -> None:
    page = visit(height=500)
    settle(page, "sampling", "max_new_tokens", 6)
    before = data(page, "run")
    norm_refused(page)
    expect(page.locator("#ctl-loop_norm")).to_be_in_viewport()
    expect(page.locator("#ctl-loop_norm")).to_contain_text("no learned norm")
    out = page.locator(".lv-out")
    expect(out).to_have_text("Run stories-loop, which has it")
    assert data(page, "run") == before
    out.click()
    another_run(page, before)
    expect(out).to_be_hidden()
    ended(page)
    expect(page.locator(MODEL)).to_have_value("stories-loop")
    expect(page.locator("#ctl-loop_norm input")).to_be_checked()
    assert not page.locator("#ctl-loop_norm").evaluate("node => node.classList.contains('lv-refused')")
    same_as_server(page)


def test_why_a_start_was_refused_stays_when_the_run_before_it_ends_later(page: Page) -> None:
    """The end of the earlier run, if it came last, took away what was said beside the prompt, and the button that helps."""
    found = page.evaluate("""() => {
      const form = new window.loopvizForm.constructor();
      form.page = { model: { watch() {} }, narrow: { showRefused() {} } };
      form.refuse({ beside: { prompt: "too long" }, open: [], keep: "Keep the end" });
      const [own, earlier] = [form.settled([], []), form.settled([], [])];
      form.refuse(null);
      return { own, earlier, next: form.settled([], []) ?? null };
    }""")
    assert found["own"] == found["earlier"]
    assert [found["own"][0]["info"], found["own"][1]["value"]] == ["too long", "Keep the end"]
    assert found["next"] is None, "until the next start"


def test_what_a_model_has_brought_is_not_taken_back_when_it_is_said_again(page: Page) -> None:
    """A model chosen and run at once is asked twice what it brings; the second answer forgot what gave way, and whether to start."""
    found = page.evaluate("""() => {
      const form = new window.loopvizForm.constructor(), started = [];
      form.page = { start: () => started.push(1) };
      form.suits = "a";
      const said = (more) => JSON.stringify({ kind: "brought", model: "m", changes: { loop_count: 3 }, gave: {}, whole: false, prompt: null, ...more })
        .replace(/["']/g, (quote) => (quote === '"' ? "'" : '"'));
      form.bring(["loop_count"], said({ id: "1", gave: { loop_damping: 0.5 } }), "m");
      const second = form.bring(["loop_count"], said({ id: "2" }), "m");
      const kept = form.gave;
      form.bring(["loop_count"], said({ id: "3", whole: true, changes: { loop_count: 7 } }), "m");
      const late = form.bring(["loop_count"], said({ id: "4" }), "m");
      form.adopted();
      return { second, kept, late, started };
    }""")
    assert found == {"second": [], "kept": {"loop_damping": 0.5}, "late": [], "started": [1]}


def test_a26_a_prompt_that_is_too_long_can_be_cut_to_its_end(page: Page) -> None:
    settle(page, "sampling", "max_new_tokens", 8)
    box, keep = page.locator("#ctl-prompt textarea"), page.locator("#lv-keep")
    expect(keep).to_be_hidden()
    long = "".join(f"word{i} " for i in range(900))
    box.fill(long)
    page.click("#lv-run")
    expect(keep).to_have_text("Keep the last 1016 tokens")
    expect(page.locator("#ctl-prompt .info-text")).to_contain_text("context is 1,024 tokens")
    expect(page.locator(".lv-status")).to_have_text("Not started: see the ⚠ beside the prompt.")  # told once
    assert box.input_value() == long, "nothing typed is lost"
    keep.click()
    expect(keep).to_be_hidden()
    expect(page.locator("#ctl-prompt .info-text")).not_to_contain_text("context is")
    cut = box.input_value()
    assert 0 < len(cut) < len(long)
    assert long.endswith(cut)
    before = data(page, "run")
    page.click("#lv-run")
    another_run(page, before)
    ended(page)


def test_a24_a_prompt_of_the_visitor_s_own_stays(page: Page) -> None:
    settle(page, "sampling", "max_new_tokens", 6)
    if data(page, "run") != "recorded":
        page.get_by_role("button", name="Recorded run").click()
        page.wait_for_selector('.lv[data-run="recorded"]')
    show(page, "instrument")
    page.fill("#ctl-prompt textarea", "loop")
    before = data(page, "run")
    page.locator(".lv-panel[data-panel=instrument] .lv-act").click()
    another_run(page, before)
    ended(page)
    expect(page.locator(MODEL)).to_have_value("glassbox")
    expect(page.locator("#ctl-prompt textarea")).to_have_value("loop")
    expect(page.locator(".lv-text")).to_contain_text("loop")
