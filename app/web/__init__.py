"""The edge towards the network: what is let in, and what is cleared away after those who left."""
