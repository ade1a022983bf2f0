"""How well text can be told from what is behind it, measured in the pixels of a page (WCAG 2.2, 1.4.3).

What is behind a text is what the browser paints when no text has a colour: tints, cells of a heat map, hatches, whatever is
there. What is in front is the text's own computed colour, thinned by every opacity above it; an outline does not count.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Page

SHARE = 0.2  # of the pixels behind a text that may be worse: an underline, the lines of a hatch
# All of what scrolls inside the page is laid open, so that it can be measured.
_OPEN = """#lv-settings, .lv-text, .lv-card-text, .lv-form { max-height: none !important; height: auto !important; overflow: visible !important;
  position: static !important } * { transition: none !important; animation: none !important; caret-color: transparent !important }"""
# (once: rules for every element, once more with every measure, are what the next ones would wait for)
_LAID_OPEN = """(rules) => { if (!document.getElementById('laid-open'))
  document.head.append(Object.assign(document.createElement('style'), { id: 'laid-open', textContent: rules })); }"""
_HIDDEN = """*, *::before, *::after, *::placeholder, *::marker { color: transparent !important; -webkit-text-fill-color: transparent !important;
  text-shadow: none !important; text-decoration-color: transparent !important }
  svg text, svg tspan { fill: transparent !important; stroke: transparent !important; text-shadow: none !important }"""
_SETTLED = """async () => { for (let i = 0; i < 3; i++) await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 20))); }"""
_TEXTS = """() => {
  const pen = Object.assign(document.createElement('canvas'), { width: 1, height: 1 }).getContext('2d', { willReadFrequently: true });
  const rgba = (colour) => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data];
  };
  const modal = document.querySelector('dialog[open], .lv-tour'); // what lies under it is not read
  const found = [];
  const add = (text, node, rects, style, colour) => {
    if (!node.checkVisibility({ visibilityProperty: true }) || (modal && !modal.contains(node))) return;
    if (node.closest(':disabled, [aria-disabled="true"], .lv-sr, label:has(:disabled), .form > .block:has(input:disabled), .sr-only, option')) return;
    let [red, green, blue, alpha] = rgba(colour);
    alpha /= 255;
    for (let at = node; at; at = at.parentElement) alpha *= Number(getComputedStyle(at).opacity);
    if (node.closest('svg')) alpha *= Number(style.fillOpacity);
    // what an ancestor cuts off is not seen
    let [left, top, right, bottom] = [0, 0, document.documentElement.scrollWidth, document.documentElement.scrollHeight];
    for (let at = node.parentElement; at && at !== document.documentElement; at = at.parentElement) {
      const { overflowX, overflowY } = getComputedStyle(at);
      if (overflowX === 'visible' && overflowY === 'visible') continue;
      const box = at.getBoundingClientRect();
      [left, top, right, bottom] = [Math.max(left, box.left), Math.max(top, box.top), Math.min(right, box.right), Math.min(bottom, box.bottom)];
    }
    const size = parseFloat(style.fontSize);
    const boxes = [...rects].map((box) => [Math.max(box.left, left), Math.max(box.top, top), Math.min(box.right, right), Math.min(box.bottom, bottom)]);
    const seen = boxes.filter(([a, b, c, d]) => c - a >= 2 && d - b >= 4);
    if (!seen.length) return;
    const path = [];
    for (let at = node; at && path.length < 4; at = at.parentElement) path.unshift(at.id ? `#${at.id}` : at.localName + (typeof at.className === 'string' && at.className ? `.${at.className.trim().split(/\\s+/).join('.')}` : ''));
    found.push({ text: text.slice(0, 60), path: path.join(' > '), boxes: seen, colour: [red, green, blue, alpha], large: size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) });
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const parent = node.parentElement;
    if (!node.data.trim() || ['SCRIPT', 'STYLE', 'NOSCRIPT', 'OPTION', 'TITLE', 'TEXTAREA'].includes(parent.tagName)) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const style = getComputedStyle(parent);
    add(node.data.trim(), parent, range.getClientRects(), style, parent.closest('svg') ? style.fill : style.color);
  }
  for (const field of document.querySelectorAll('input:is([type=text], [type=number], [type=search], :not([type])), textarea, select')) {
    const shown = field.value || field.placeholder;
    const style = getComputedStyle(field, field.value || field.tagName === 'SELECT' ? null : '::placeholder');
    if (shown) add(shown, field, [field.getBoundingClientRect()], style, style.color);
  }
  return found;
}"""


@dataclass(frozen=True)
class Faint:
    """A text that is too faint: what it says, where it is, its contrast, what it should have, its colours, its place on the page."""

    text: str
    path: str
    contrast: float
    wanted: float
    colour: str  # as it is seen: thinned by every opacity
    behind: str  # of the pixels that count, the middle one
    at: tuple[int, int]  # left, top, CSS pixels of the whole page

    def __str__(self) -> str:
        x, y = self.at
        return f"{self.contrast:.2f} < {self.wanted}: {self.text!r}, {self.colour} on {self.behind}, at ({x}, {y}), in {self.path}"


def _hex(rgb: np.ndarray) -> str:
    return "#" + "".join(f"{round(part):02x}" for part in rgb)


def _linear(rgb: np.ndarray) -> np.ndarray:
    part = rgb / 255
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)


_LINEAR = _linear(np.arange(256))  # of whole numbers, as a picture's are: looked up, not computed for every pixel


def _luminance(rgb: np.ndarray) -> np.ndarray:
    """Relative luminance of sRGB, `[..., 3]` in 0..255 -> `[...]` in 0..1."""
    linear = _LINEAR[rgb] if rgb.dtype == np.uint8 else _linear(rgb)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


def contrast(front: np.ndarray, alpha: float, behind: np.ndarray) -> np.ndarray:
    """Contrast ratio of a colour of this opacity on each of the pixels `[n, 3]`."""
    on, below = _luminance(front if alpha == 1 else alpha * front + (1 - alpha) * behind), _luminance(behind)
    return (np.maximum(on, below) + 0.05) / (np.minimum(on, below) + 0.05)


def faint(page: Page) -> list[Faint]:
    """The visible texts of a page that are below 4.5:1 (3:1 where they are large), the worst first.

    What is found is measured once more: a text that was on its way while the picture was taken is found at one place only.
    """
    found = _faint(page)
    again = {(one.text, one.path, one.at) for one in _faint(page)} if found else set()
    return [one for one in found if (one.text, one.path, one.at) in again]


def _faint(page: Page) -> list[Faint]:
    page.evaluate("window.scrollTo(0, 0)")
    page.evaluate(_LAID_OPEN, _OPEN)
    page.evaluate(
        _SETTLED
    )  # a bar that follows the text goes when an observer says so: after a frame, however late that is
    page.wait_for_timeout(300)
    texts: list[dict[str, Any]] = page.evaluate(_TEXTS)
    hidden = page.add_style_tag(content=_HIDDEN)
    pixels = np.asarray(Image.open(io.BytesIO(page.screenshot(full_page=True, scale="css"))).convert("RGB"))
    hidden.evaluate("(style) => style.remove()")
    assert texts
    found: dict[tuple[str, str], Faint] = {}
    for text in texts:
        *front, alpha = text["colour"]
        wanted = 3.0 if text["large"] else 4.5
        for left, top, right, bottom in text["boxes"]:
            inner = min(3.0, (right - left) / 4)  # an outline beside a letter is not behind it
            left, right = left + inner, right - inner
            behind = pixels[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))].reshape(-1, 3)
            if not len(behind):
                continue
            ink = np.array(front, dtype=float)
            ratios = contrast(ink, alpha, behind)
            ratio = float(np.quantile(ratios, SHARE))
            where = text["text"], text["path"]
            if round(ratio, 2) < wanted and (where not in found or ratio < found[where].contrast):
                below = behind[np.abs(ratios - ratio).argmin()]
                seen = _hex(alpha * ink + (1 - alpha) * below)
                found[where] = Faint(*where, ratio, wanted, seen, _hex(below), (round(left), round(top)))
    return sorted(found.values(), key=lambda one: one.contrast)
