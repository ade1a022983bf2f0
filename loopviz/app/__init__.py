"""The Gradio pages. Importing this package, and building a page, needs neither torch nor transformers."""
