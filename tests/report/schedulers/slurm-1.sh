#!/bin/bash
#SBATCH --job-name=net
#SBATCH --time=0-01:21:00
#   P95 of the run, 1h 20m, and the last save's reserve, 2.44 s, and a minute to
#   end
#SBATCH --signal=B:TERM@63
#   the last save's reserve, 2.44 s, and a minute to end
#SBATCH --requeue --open-mode=append
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
# measured on NVIDIA A100-SXM4-80GB, of whose memory it needs 30.0 GiB (P95)

exec epochcast run plan.json -- torchrun --standalone --nproc-per-node 4 train.py
