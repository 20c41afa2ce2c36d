"""The web page of LaMPE Lab."""
