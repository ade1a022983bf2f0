"""The page's look as a Gradio theme: calm greys, one accent, the system's own fonts (nothing is fetched)."""

from __future__ import annotations

import gradio as gr

PAGE = {"light": "#f6f7f9", "dark": "#0d1117"}  # what everything lies on


def theme() -> gr.themes.Base:
    """The theme; what it cannot say is in `assets/web/styles/base.css`."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Noto Sans", "Noto Sans CJK SC", "PingFang SC", "sans-serif"]
    base = gr.themes.Base(
        primary_hue=gr.themes.colors.indigo,
        neutral_hue=gr.themes.colors.slate,
        font=fonts,
        font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "monospace"],
        spacing_size=gr.themes.sizes.spacing_sm,
        radius_size=gr.themes.sizes.radius_md,
        text_size=gr.themes.sizes.text_md,
    )
    return base.set(
        body_background_fill=PAGE["light"],
        body_background_fill_dark=PAGE["dark"],
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#111827",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_border_width="0px",
        block_border_width_dark="0px",
        block_shadow="none",
        block_label_text_weight="500",
        block_title_text_weight="500",
        block_title_text_size="13px",
        block_info_text_size="12px",
        block_padding="6px 2px",
        input_background_fill="#ffffff",
        input_background_fill_dark="#0d1117",
        input_border_width="1px",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_text_color="#ffffff",
        layout_gap="10px",
    )
