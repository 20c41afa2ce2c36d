#!/usr/bin/env bash
# LongBench's 16 English tasks. What is longer than 7,500 tokens loses its middle, as LongBench's own scripts do it.
# What is given after its name is added, and replaces what stands here: --ray, --samples 20, --model another/model.
set -euo pipefail
exec python -m lampe evaluate --model meta-llama/Meta-Llama-3-8B-Instruct --bits 16 --cut 7500 --samples 500 --methods rope,lampe,selfextend \
  --tasks longbench_narrativeqa,longbench_qasper,longbench_multifieldqa_en,longbench_hotpotqa,longbench_2wikimqa,longbench_musique,longbench_gov_report,longbench_qmsum,longbench_multi_news,longbench_trec,longbench_triviaqa,longbench_samsum,longbench_passage_count,longbench_passage_retrieval_en,longbench_lcc,longbench_repobench-p \
  --out evaluation/longbench-llama-3-8b "$@"
