"""A run taken elsewhere: one HTML file, a notebook's cell, a panel's numbers as a table."""
