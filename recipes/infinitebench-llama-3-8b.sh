#!/usr/bin/env bash
# ∞Bench, its texts cut to 64k tokens: eight windows.
# What is given after its name is added, and replaces what stands here: --ray, --samples 20, --model another/model.
set -euo pipefail
exec python -m lampe evaluate --model meta-llama/Meta-Llama-3-8B-Instruct --bits 16 --cut 65536 --samples 600 --methods lampe,selfextend,dca \
  --tasks infinitebench \
  --out evaluation/infinitebench-llama-3-8b "$@"
