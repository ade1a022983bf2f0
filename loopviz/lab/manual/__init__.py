"""What the manual's experiment needs besides its task: the configurations, and the table with its figure."""
