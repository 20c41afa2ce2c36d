"""What opens first: the squeezed ruler, why it is needed, and the recorded proof. It needs no model."""
