"""The drawings of a report, one file each; every one is a Vega-Lite chart made with Altair."""
