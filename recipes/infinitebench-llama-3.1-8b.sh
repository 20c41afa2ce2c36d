#!/usr/bin/env bash
# ∞Bench on a model whose window is 128k tokens: does a mapping help within it?
# What is given after its name is added, and replaces what stands here: --ray, --samples 20, --model another/model.
set -euo pipefail
exec python -m lampe evaluate --model meta-llama/Llama-3.1-8B-Instruct --bits 16 --cut 131072 --samples 600 --methods rope,lampe,string \
  --tasks infinitebench \
  --out evaluation/infinitebench-llama-3.1-8b "$@"
