"""What needs a GPU is collected only where PyTorch sees one: `pytest tests/gpu`."""

import torch

if not torch.cuda.is_available():
    collect_ignore_glob = ["test_*.py"]
