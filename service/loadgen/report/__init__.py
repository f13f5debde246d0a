"""The report of load runs: one HTML file with nothing outside of it, no scripts, pictures in SVG.

Path: results → sections ─charts, scales─▶ **page** → a file. Colours follow the reader's light
or dark, and the printer.
"""
