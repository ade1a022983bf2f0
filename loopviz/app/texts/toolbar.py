"""The words of Plotly's own buttons, which it knows in English: its names for them, and ours in both languages."""

from __future__ import annotations

# our key (`plot.<key>` in the texts) -> what Plotly calls it, which is how a locale of its own is written
PLOTLY: dict[str, str] = {
    "png": "Download plot as a PNG",
    "png.file": "Download plot as a png",
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
    "taking": "Taking snapshot - this may take a few seconds",
    "taken": "Snapshot succeeded",
    "failed": "Sorry, there was a problem downloading your snapshot!",
}

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "plot.png": "Picture of this plot (PNG)",
        "plot.png.file": "Picture of this plot (PNG)",
        "plot.plot": "Picture of this plot",
        "plot.zoom": "Drag to zoom",
        "plot.pan": "Drag to move",
        "plot.in": "Zoom in",
        "plot.out": "Zoom out",
        "plot.reset": "Back to the whole",
        "plot.auto": "Fit to what is drawn",
        "plot.turn": "Drag to turn freely",
        "plot.table": "Drag to turn about the upright axis",
        "plot.camera": "Back to the first view",
        "plot.last": "Back to the last view kept",
        "plot.double": "Double-click to go back to the whole",
        "plot.taking": "The picture is being made; it may take some seconds",
        "plot.taken": "The picture was made",
        "plot.failed": "The picture could not be made.",
    },
    "zh": {
        "plot.png": "下载此图（图片）",
        "plot.png.file": "下载此图（图片）",
        "plot.plot": "下载此图",
        "plot.zoom": "拖动以放大",
        "plot.pan": "拖动以平移",
        "plot.in": "放大",
        "plot.out": "缩小",
        "plot.reset": "恢复全图",
        "plot.auto": "适应已画的内容",
        "plot.turn": "拖动以自由旋转",
        "plot.table": "拖动以绕竖轴旋转",
        "plot.camera": "恢复最初的视角",
        "plot.last": "恢复上次保存的视角",
        "plot.double": "双击恢复全图",
        "plot.taking": "正在生成图片，可能需要几秒",
        "plot.taken": "图片已生成",
        "plot.failed": "无法生成图片。",
    },
}


def dictionary(lang: str) -> dict[str, str]:
    """Plotly's words in a language, as its locales have them."""
    return {english: TEXTS[lang][f"plot.{key}"] for key, english in PLOTLY.items()}
