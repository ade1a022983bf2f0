"""The words of Plotly's own buttons, which it knows in English: its names for them, and ours in both languages."""

from __future__ import annotations

# our key -> what Plotly calls it, which is how a locale of its own is written
PLOTLY: dict[str, str] = {
    "png": "Download plot as a PNG",
    "plot": "Download plot",
    "zoom": "Zoom",
    "pan": "Pan",
    "in": "Zoom in",
    "out": "Zoom out",
    "reset": "Reset axes",
    "auto": "Autoscale",
    "turn": "Orbital rotation",
    "table": "Turntable rotation",
    "camera": "Reset camera to default",
    "last": "Reset camera to last save",
    "double": "Double-click to zoom back out",
}

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "png": "Picture of this plot (PNG)",
        "plot": "Picture of this plot",
        "zoom": "Drag to zoom",
        "pan": "Drag to move",
        "in": "Zoom in",
        "out": "Zoom out",
        "reset": "Back to the whole",
        "auto": "Fit to what is drawn",
        "turn": "Drag to turn freely",
        "table": "Drag to turn about the upright axis",
        "camera": "Back to the first view",
        "last": "Back to the last view kept",
        "double": "Double-click to go back to the whole",
    },
    "zh": {
        "png": "下载此图（图片）",
        "plot": "下载此图",
        "zoom": "拖动以放大",
        "pan": "拖动以平移",
        "in": "放大",
        "out": "缩小",
        "reset": "恢复全图",
        "auto": "适应已画的内容",
        "turn": "拖动以自由旋转",
        "table": "拖动以绕竖轴旋转",
        "camera": "恢复最初的视角",
        "last": "恢复上次保存的视角",
        "double": "双击恢复全图",
    },
}


def dictionary(lang: str) -> dict[str, str]:
    """Plotly's words in a language, as its locales have them."""
    return {english: TEXTS[lang][f"{key}"] for key, english in PLOTLY.items()}
