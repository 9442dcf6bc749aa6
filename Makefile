# Consortia: `make help` lists the targets. Everything lives in .venv and .consortia.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
# Each of two test processes has one core: threads that wait for each other would only get in the way,
# and where a child has two, they must not spin while they wait.
TWO_PROCESSES := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 OMP_WAIT_POLICY=passive
TWO_AT_A_TIME := -n 2 --dist loadfile --no-loadscope-reorder

# What the caller's shell has set for another Python must not reach this one; and children that may
# not keep compiled modules would each compile all of ours again.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV PYTHONDONTWRITEBYTECODE

.PHONY: help demo demo-stop test test-long chaos check check-wheels format clean
.PHONY: bench bench-merge bench-quality bench-attacks bench-contracts bench-models bench-memory bench-data bench-steps bench-train bench-gpu bench-precision bench-families bench-denoising bench-privacy bench-dp bench-leaks bench-novelty

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

demo: $(READY) ## three institutions, two rounds, one machine (KEEP=1 leaves it running; PERSONAL=1: adapters of their own; MODE=confidential: five, of which one drops out)
	@$(BIN)/consortia demo $(if $(filter 1,$(KEEP)),--keep) $(if $(MODE),--mode $(MODE)) $(if $(filter 1,$(PERSONAL)),--personal)

demo-stop: $(READY) ## stop a demo that was kept running
	@$(BIN)/consortia stack stop --state .consortia/demo/stack

test: check ## all checks and the tests, about ten minutes on two cores
	@$(TWO_PROCESSES) $(BIN)/python -m pytest $(TWO_AT_A_TIME) -m "not long and not campaign"

test-long: $(READY) ## the tests that wait for whole federations, deadlines and killed processes; CI runs both
	@$(TWO_PROCESSES) $(BIN)/python -m pytest $(TWO_AT_A_TIME) -m "long and not campaign"

chaos: check ## the campaigns: every guard deleted, millions of mutated inputs, hundreds of years
	@$(TWO_PROCESSES) $(BIN)/python -m tests.chaos
	@$(TWO_PROCESSES) $(BIN)/python -m pytest $(TWO_AT_A_TIME) -m campaign

check: $(READY) ## format, lint, types, import rules
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/mypy

check-wheels: $(READY) ## which pinned packages have no wheel (asks the package index; run when pins change)
	@$(BIN)/python -m infra.check_wheels

format: $(READY) ## rewrite the code in the project's format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: bench-merge bench-quality bench-attacks bench-contracts bench-models bench-memory bench-data bench-steps bench-train bench-precision bench-families bench-denoising bench-privacy bench-dp bench-leaks bench-novelty ## all measurements, about four hours

bench-merge: $(READY) ## the merge next to Flower and NVIDIA FLARE; writes .consortia/bench/merge.json
	@$(BIN)/python -m benchmarks.merge $(if $(filter 1,$(QUICK)),--quick)

bench-quality: $(READY) ## learning quality of every merge rule (ENTRANTS=a,b: those again; QUICK=1: two, or those, at one rate and SEEDS=n of the seeds; ROUNDS=1: in 2 and 4 rounds; RANKS=1: rank collapse; LIKENESS=1: silos and copies; PRIVATE=1: under differential privacy); writes .consortia/bench/quality.json
	@$(BIN)/python -m benchmarks.quality $(if $(filter 1,$(QUICK)),--quick) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(filter 1,$(ROUNDS)),--rounds) $(if $(filter 1,$(RANKS)),--ranks) $(if $(filter 1,$(LIKENESS)),--likeness) $(if $(filter 1,$(PRIVATE)),--private) $(if $(ENTRANTS),--entrants $(ENTRANTS))

bench-attacks: $(READY) ## attacks against every defence; writes .consortia/bench/attacks.json
	@$(BIN)/python -m benchmarks.attacks $(if $(filter 1,$(QUICK)),--quick)

bench-novelty: $(READY) ## which copies of a silo's records are found in a synthetic set; adds to .consortia/bench/lifecycle.json
	@$(BIN)/python -m benchmarks.novelty

bench-contracts: $(READY) ## measure the data gate; writes .consortia/bench/contracts.json
	@$(BIN)/python -m benchmarks.contracts

bench-models: $(READY) ## which architectures keep packed conversations apart; writes .consortia/bench/base-models.json
	@DS_ACCELERATOR=cpu $(BIN)/python -m benchmarks.base_models

bench-memory: $(READY) ## estimated and measured memory of six models at all stages (QUICK=1: at stage 2); writes .consortia/bench/memory.json
	@$(TWO_PROCESSES) $(BIN)/python -m benchmarks.memory $(if $(filter 1,$(QUICK)),--quick)

bench-families: $(READY) ## every family as a federation of three silos against base, local and central training, and personal adapters (QUICK=1: short; ONLY=causal,masked: those); writes .consortia/bench/families.json
	@OMP_WAIT_POLICY=passive DS_ACCELERATOR=cpu $(BIN)/python -m benchmarks.families $(if $(filter 1,$(QUICK)),--quick) $(if $(ONLY),--only $(ONLY))

bench-precision: $(READY) ## what quantised base weights cost a CPU (needs bitsandbytes); writes .consortia/bench/precision.json
	@DS_ACCELERATOR=cpu $(BIN)/python -m benchmarks.precision

bench-denoising: $(READY) ## likeness of silos and spread of losses by what is drawn (needs diffusers); writes .consortia/bench/denoising.json
	@DS_ACCELERATOR=cpu $(BIN)/python -m benchmarks.denoising

bench-privacy: $(READY) ## masked sums of 16 silos beside the plain average and Flower's SecAgg+ (QUICK=1: of 4), and the error of sketches; writes .consortia/bench/privacy.json and sketch.json
	@$(BIN)/python -m benchmarks.privacy $(if $(filter 1,$(QUICK)),--quick)
	@$(BIN)/python -m benchmarks.privacy.sketch

bench-dp: $(READY) ## private steps beside plain ones and Opacus, on a model of SmolLM2's shape (QUICK=1: a small one); adds to .consortia/bench/privacy.json
	@$(BIN)/python -m benchmarks.privacy.private_training $(if $(filter 1,$(QUICK)),--quick)

bench-leaks: $(READY) ## which tokens of its records a silo's submission gives away after 1, 5, 20 and 60 steps (QUICK=1: 1 and 5), compressed, private and masked; adds to .consortia/bench/privacy.json
	@DS_ACCELERATOR=cpu $(BIN)/python -m benchmarks.leaks $(if $(filter 1,$(QUICK)),--quick)

bench-data: $(READY) ## records to tokens to micro-batches, time and memory (RECORDS=n, QUICK=1: others); writes .consortia/bench/data.json
	@$(BIN)/python -m benchmarks.data_path $(if $(filter 1,$(QUICK)),--quick) $(if $(RECORDS),--records $(RECORDS))

bench-steps: $(READY) ## what it costs that every other silo does half of the steps; writes .consortia/bench/unequal-steps.json
	@$(BIN)/python -m benchmarks.unequal_steps

bench-train: $(READY) ## a silo's training beside bare DeepSpeed and the padded Trainer, a round's overhead beside Flower and FLARE (QUICK=1: short, without the peers); writes .consortia/bench/train.json
	@$(TWO_PROCESSES) $(BIN)/python -m benchmarks.training $(if $(filter 1,$(QUICK)),--quick)

bench-gpu: $(READY) ## the same training on this machine's GPUs, at most eight minutes; writes .consortia/bench/gpu.json
	@$(BIN)/python -m benchmarks.gpu

clean: ## remove the environment and everything the demo made
	rm -rf $(VENV) .consortia build *.egg-info

$(READY): pyproject.toml constraints.txt infra/setup_environment.sh
	@PYTHON="$(PYTHON)" bash infra/setup_environment.sh $(VENV)
