"""What pages share on the server: models, what visitors have begun and kept, limits, messages. Knows no page."""
