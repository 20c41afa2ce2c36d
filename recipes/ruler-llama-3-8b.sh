#!/usr/bin/env bash
# RULER from the window to sixteen windows: 13 tasks, 500 samples of each length.
# What is given after its name is added, and replaces what stands here: --ray, --samples 20, --model another/model.
set -euo pipefail
exec python -m lampe evaluate --model meta-llama/Meta-Llama-3-8B-Instruct --bits 16 --tasks ruler --lengths 8192,16384,32768,65536,131072 \
  --methods rope,lampe,selfextend,dca,yarn --samples 500 \
  --out evaluation/ruler-llama-3-8b "$@"
