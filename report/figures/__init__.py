"""The drawings of a report, one file each. Every drawing is a Vega-Lite document."""
