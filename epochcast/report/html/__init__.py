"""One page for whoever pays or reviews: everything in one file, nothing from the network.

    a plan, a store ──contents.py──▶ Contents ──page.py──▶ one .html file
                                                  │
                 tables of text/, pictures of plots/, elements.py, page.css

The page has no script, and says so to the browser; every text enters it escaped.
"""
