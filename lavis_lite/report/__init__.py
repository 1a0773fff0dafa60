"""Charts, galleries and templates that make one HTML file of what a run left."""
