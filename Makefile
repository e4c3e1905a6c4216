# make demo | test | check | sanity | clean. Options: make bench-converge BENCH='--hosts 1 --reps 3', make sanity SANITY='--core 2.21'
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.venv/bin:$(PATH)
LAB := tests/lab/lab

.PHONY: help setup lab demo check sanity artifact test test-apps test-pins test-thorough test-fleet test-vm test-cluster bench-build bench-swap bench-converge bench-serve bench-restart bench-fleet bench-edge clean

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' Makefile

setup: ## install the tools into .venv
	@tools/setup

lab: setup ## install what the lab of systemd nodes needs
	@$(LAB) setup

demo: lab ## empty systemd nodes to a serving app, and a curl of it
	@tools/demo

check: setup ## lint and unit tests
	@tools/check

sanity: setup ## ansible-test with each ansible-core, and the other gates of Ansible's field, on what is shipped
	@tools/sanity $(SANITY)

artifact: setup ## the collection as users get it, in build/artifact
	@tools/artifact

test: lab ## everything
	@tools/all

test-apps: lab ## apps of others and of many tools, on lab nodes; build/bench/apps.json (30 minutes). Options: APPS='prefect pdm'
	@tests/apps/run $(APPS)

test-pins: setup ## every Gunicorn and Uvicorn that the worker class works with, and each Python; build/bench/pins.json (30 minutes)
	@tests/pins/run

test-thorough: lab ## siblings of what make test tries: more faults, servers and controllers (30 minutes)
	@pytest -v --numprocesses 2 --dist loadfile --no-loadscope-reorder -m thorough tests/system

test-fleet: lab ## four hosts: waves and their failures, hosts that are away, edges (30 minutes)
	@molecule test --scenario-name edge
	@pytest -v -m fleet tests/system

test-vm: setup ## a machine with a kernel and a disk of its own: power cuts, limits of memory and CPU, restarts; build/bench/vm.json (90 minutes)
	@$(LAB) setup --vm
	@pytest -v -s tests/vm

test-cluster: setup ## the reference app on the cluster that KUBECONFIG names
	@pytest -v -m cluster tests/system/test_cluster.py

bench-build: setup ## how long a build takes, cold and warm; build/bench/build.json
	@python tests/bench/build.py $(BENCH)

bench-swap: lab ## releases under load, against restart, HUP and the stock worker (12 minutes)
	@python tests/bench/swap.py $(BENCH); rc=$$?; $(LAB) clean --set swap; exit $$rc

bench-converge: lab ## how long deploys take, beside plain Ansible, Mitogen and pyinfra
	@python3 tests/bench/converge.py --plot $(BENCH)

bench-restart: lab ## how long nobody is answered in a restart, by number of workers (8 minutes)
	@python tests/bench/restart.py $(BENCH)

bench-fleet: lab ## releases over three and ten hosts: seconds, spread of a wave, take-back (40 minutes)
	@python tests/bench/fleet.py $(BENCH)

bench-edge: lab ## what the edge costs, beside an HAProxy tuned by hand (6 minutes)
	@python tests/bench/edge.py $(BENCH)

bench-serve: setup ## how fast the app is served, beside bare Gunicorn and others
	@python3 tests/bench/serve.py $(BENCH)

clean: ## remove every node, network, image and temporary file of ours
	@[ ! -x $(LAB) ] || $(LAB) clean
	@rm -rf build .venv app/.venv inventories/lab/secrets inventories/machine/secrets .ansible
	@find . -name '.*_cache' -prune -exec rm -rf {} + -o -name __pycache__ -prune -exec rm -rf {} + -o -name .hypothesis -prune -exec rm -rf {} +
