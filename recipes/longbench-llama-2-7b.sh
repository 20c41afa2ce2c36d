#!/usr/bin/env bash
# The same on a window of 4,096 tokens: prompts are cut to 3,500.
# What is given after its name is added, and replaces what stands here: --ray, --samples 20, --model another/model.
set -euo pipefail
exec python -m lampe evaluate --model meta-llama/Llama-2-7b-chat-hf --bits 16 --cut 3500 --samples 500 --methods rope,lampe,selfextend \
  --tasks longbench_narrativeqa,longbench_qasper,longbench_multifieldqa_en,longbench_hotpotqa,longbench_2wikimqa,longbench_musique,longbench_gov_report,longbench_qmsum,longbench_multi_news,longbench_trec,longbench_triviaqa,longbench_samsum,longbench_passage_count,longbench_passage_retrieval_en,longbench_lcc,longbench_repobench-p \
  --out evaluation/longbench-llama-2-7b "$@"
