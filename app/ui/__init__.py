"""What all tabs of the page share."""
