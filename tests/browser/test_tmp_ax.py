from playwright.sync_api import expect

NAMES = ["norms", "rope_length", "grouped_queries", "cache_or_not", "roofline", "lora_count", "llama_sizes"]


def test_shots(visit):
    page = visit("?task=norms", at="lab")
    for name in NAMES:
        page.locator(f'.lv-task[data-task="{name}"]').click()
        page.wait_for_selector('.lv-results[data-kind="recorded"]')
        page.wait_for_timeout(900)
        page.screenshot(path=f"/tmp/ax_{name}.png", full_page=True)
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(800)
    page.screenshot(path="/tmp/ax_phone.png", full_page=True)


def test_fresh(visit):
    page = visit("?task=cache_or_not&lang=zh", at="lab")
    page.locator("[data-field=text] textarea").fill(
        "Once upon a time there was a little loop that went round and round. " * 8
    )
    for name in ["cache_or_not", "grouped_queries", "llama_sizes"]:
        page.locator(f'.lv-task[data-task="{name}"]').click()
        page.locator(".lv-sizes button").first.click()
        expect(page.locator('.lv-page[data-end="done"][data-drawn="true"]')).to_be_visible(timeout=60000)
        page.wait_for_timeout(500)
        page.screenshot(path=f"/tmp/ax_fresh_{name}.png", full_page=True)
