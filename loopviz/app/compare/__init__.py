"""The Compare page: two to six configurations on the same prompt, side by side."""
