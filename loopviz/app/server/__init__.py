"""What the web server does besides Gradio: assets, the document's head, who may ask, what a browser may do. Knows no page."""
