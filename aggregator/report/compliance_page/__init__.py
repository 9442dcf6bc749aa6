"""The round report as a page for a compliance officer."""
