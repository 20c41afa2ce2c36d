"""Attention under a position map, in exact pieces.

Each region of a position map is cut into tiles: rectangles of (query, key) pairs that a stock attention
kernel computes in one call, whole, as a triangle or as a band. Every pair belongs to one tile, so the cost is
that of one causal attention, and what a band's blocks compute beyond it. The kernels also give the log-sum-exp
of their scores; with it the pieces are merged into the softmax over all regions, and its weights are the share
of attention that fell in each region (LaMPE, arXiv 2508.02308, section 3.3).

Queries and keys come rotated to one position for each token, the resting map's, and each region rotates them
further by the difference. The resting map is that of the region with the most keys, so those are used as they
lie in the cache. The few others that a single token meets, Head's and Tail's, are kept once more as it wants
them, and from token to token only the newest is rotated, however long the text is. (Where a cache outlives its
plan, the longer plan's Middle has to be rotated for each token.)
"""
