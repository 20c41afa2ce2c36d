#!/usr/bin/env bash
# RULER on a window of 4,096 tokens.
# What is given after its name is added, and replaces what stands here: --ray, --samples 20, --model another/model.
set -euo pipefail
exec python -m lampe evaluate --model meta-llama/Llama-2-7b-chat-hf --bits 16 --tasks ruler --lengths 4096,8192,16384 \
  --methods rope,lampe,selfextend,dca,yarn --samples 500 \
  --out evaluation/ruler-llama-2-7b "$@"
