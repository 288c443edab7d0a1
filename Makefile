# Everything a developer or a new user runs; each target sets itself up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RUNTIMES := $(VENV)/runtimes

# Outside requirements.lock, because PyTorch's CUDA build wants another Triton: what compiles the plugin's kernels, with
# an assembler for CUDA 12 drivers (JetPack 6) and one for Thor.
KERNEL_TOOLS := triton==3.6.0 nvidia-cuda-nvcc-cu12==12.6.85 nvidia-cuda-nvcc==13.0.88
# TensorRT without a GPU: its plugin registry in three versions, and the parser and builder of TensorRT for RTX.
LEAN := 10.16.1.11 11.0.0.114 11.4.0.106
RTX := 1.7.1.116

.PHONY: demo test test-slow runtimes gpu-check lint format benchmark benchmark-calibration soak field field-losses field-kills field-power-cuts field-broker field-speed field-soak field-counts check-old-cpu demo-data demo-model lock clean

demo: $(READY)  ## Run the main job on the shipped model: checkpoint to INT8 bundle, pictures and a video.
	$(BIN)/python cli.py demo -o output/demo

test: $(READY)  ## Lint, type-check and run every test that this machine can.
	-@$(MAKE) --no-print-directory runtimes
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadscope

test-slow: $(READY)  ## The tests that take most of a minute each: before a release, or after a change to calibration.
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m slow

runtimes: $(READY)  ## Install the TensorRT runtimes that tests load the plugin into, each in a folder of its own (0.5 GB).
	@for version in $(LEAN); do $(MAKE) --no-print-directory $(RUNTIMES)/tensorrt-lean-$$version || exit 1; done
	@$(MAKE) --no-print-directory $(RUNTIMES)/tensorrt-rtx-$(RTX)

$(RUNTIMES)/tensorrt-lean-%:
	$(BIN)/pip install -q --no-deps --target $@.part tensorrt-lean-cu13-bindings==$* tensorrt-lean-cu13-libs==$*
	mv $@.part $@

$(RUNTIMES)/tensorrt-rtx-%:
	$(BIN)/pip install -q --no-deps --target $@.part tensorrt-rtx-cu13==$* tensorrt-rtx-cu13-bindings==$* tensorrt-rtx-cu13-libs==$*
	mv $@.part $@

# Installs nothing: it takes the PyTorch and Triton that are there.
gpu-check:  ## On a machine with a CUDA GPU: every kernel against float64, and its times beside PyTorch's.
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m plugins.gpu.check --output benchmarks/results

lint: $(READY)  ## The quick half of `test`.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

benchmark: $(READY)  ## Speed and memory, side by side in one run; wants an otherwise idle machine.
	$(BIN)/python -m benchmarks.runner_speed
	$(BIN)/python -m benchmarks.folder_speed
	$(BIN)/python -m benchmarks.memory

benchmark-calibration: $(READY) demo-data  ## Calibration beside ONNX Runtime's and, where MODELOPT_PYTHON names its Python, Model-Optimizer's.
	$(BIN)/python -m benchmarks.calibration_speed
	$(BIN)/python -m benchmarks.quantisation_choices
	$(BIN)/python -m benchmarks.quantisation_peers

soak: $(READY)  ## A minute of `infer camera` on an HTTP stream of this machine: memory, and how new the frames are.
	$(BIN)/python -m benchmarks.camera_soak

field: field-losses field-kills field-power-cuts field-broker field-speed  ## What the field service survives, and what it costs (20 minutes).

field-losses: $(READY)  ## 100 camera losses in one run.
	$(BIN)/python -m benchmarks.camera_losses 100

field-kills: $(READY)  ## 200 kills while recording.
	$(BIN)/python -m benchmarks.store_kills 200

field-power-cuts: $(READY)  ## The recorded writes, cut at every point between two fsyncs.
	$(BIN)/python -m benchmarks.power_cuts

field-broker: $(READY)  ## A broker that is away for 10,000 events (needs mosquitto).
	$(BIN)/python -m benchmarks.broker_away 10000

field-speed: $(READY) output/demo/pests.lsla  ## Overhead from camera to record, and frames per second beside the bare engine.
	$(BIN)/python -m benchmarks.field_service overhead
	$(BIN)/python -m benchmarks.field_service rate
	$(BIN)/python -m benchmarks.store_speed

field-soak: $(READY) output/demo/pests.lsla  ## Half an hour of the service: does memory grow?
	$(BIN)/python -m benchmarks.field_service soak

field-counts: $(READY) output/demo/pests.lsla  ## Counted individuals beside the truth of synthetic scenes.
	$(BIN)/python -m benchmarks.finding

check-old-cpu: $(READY) output/demo/pests.lsla  ## Self-test on an emulated x86 CPU without VNNI (needs qemu-user).
	qemu-x86_64 -cpu Haswell $(BIN)/python cli.py selftest output/demo/pests.lsla --precision int8

output/demo/pests.lsla:
	$(MAKE) demo

demo-data: $(READY)  ## Draw the demo data set anew (needs npm; apt for the photographs and some artwork).
	$(BIN)/pip install -q -e '.[artwork]'
	$(BIN)/python -m edge_lsla.data.demo -o output/demo-data

demo-model: demo-data  ## Train the demo model anew: demo/training.jsonl says how long. Then copy best.safetensors to demo/.
	$(BIN)/python cli.py train output/demo-data -o output/demo-run --model vit_lsla_demo --recipe demo
	$(BIN)/python -m edge_lsla.data.demo_assets output/demo-data -o demo

lock:  ## Pin every dependency for Python 3.10 to 3.12; PyTorch is pinned below, because its builds differ by machine.
	$(BIN)/pip install -q uv
	$(BIN)/uv pip compile -q --universal --python-version 3.10 --no-header --no-annotate --no-emit-index-url \
		--extra cli --extra camera --extra service --extra toolkit --extra dev pyproject.toml \
		| grep -vE '^(nvidia-|cuda-|triton|torch=)' > requirements.lock

clean:
	rm -rf $(VENV) output dist build

# The CPU build of PyTorch is enough; see README.md on how to get it where pip would take the CUDA one.
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --upgrade pip
	$(BIN)/pip install -q torch==2.13.0
	$(BIN)/pip install -q -r requirements.lock
	$(BIN)/pip install -q --no-deps $(KERNEL_TOOLS)
	$(BIN)/pip install -q --no-deps -e .
	touch $(READY)
