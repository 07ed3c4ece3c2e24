#!/usr/bin/env bash
# Not run here. sbatch --nodes 4 docs/cluster/slurm.sh, in a checkout on a shared disk after `make .venv/.many-machines`.
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
set -euo pipefail
export PATH="$PWD/.venv/bin:$PATH" RAY_USAGE_STATS_ENABLED=0
export NUTCLF_CACHE="${SLURM_TMPDIR:-/tmp}/nutclf" NUTCLF_DATA="${NUTCLF_DATA:?name the folder of images}"

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun --nodes 1 --ntasks 1 -w "$head" ray start --head --port 6379 --num-cpus "$SLURM_CPUS_PER_TASK" --block &
sleep 20
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
  srun --nodes $((SLURM_JOB_NUM_NODES - 1)) --ntasks $((SLURM_JOB_NUM_NODES - 1)) -x "$head" \
    ray start --address "$head:6379" --num-cpus "$SLURM_CPUS_PER_TASK" --block &
  sleep 20
fi
# The batch script runs on the first node, which is the head.
python -m nutclf sweep --ray "$head:6379" --data "$NUTCLF_DATA" "$@"
