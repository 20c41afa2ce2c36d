"""Models: loading them, the embedded default, their memory, and what LaMPE makes of them."""
