"""The Assay SDK."""
