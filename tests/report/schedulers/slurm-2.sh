#!/bin/bash
#SBATCH --job-name=net
#SBATCH --time=0-01:21:00
#   P95 of the run, 1h 20m, and the last save's reserve, 2.44 s, and a minute to
#   end
#SBATCH --signal=TERM@63
#   the last save's reserve, 2.44 s, and a minute to end
#SBATCH --requeue --open-mode=append
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
# measured on NVIDIA A100-SXM4-80GB, of whose memory it needs 30.0 GiB (P95)

export HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
exec srun bash -c 'epochcast run plan.json -- torchrun --nnodes 2 --rdzv-endpoint "$HEAD:29500" --rdzv-backend c10d --nproc-per-node 8 train.py'
