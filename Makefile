# Everything runs in .venv, which `make setup` creates; each target sets up all that it needs.
PYTHON ?= python3
RECIPE ?= engines/fashion-resnet18-int8.toml
BUILT  ?= engines/built
EXTRAS := export,cpu,rtx,mlperf,sign,bom,triton,ray,serve,deploy,parity,examples,docs,dev

NAME    = $(shell sed -n 's/^name = "\(.*\)"/\1/p' $(RECIPE))
BIN    := .venv/bin
STAMP  := .venv/.ready
MODEL  := fashion-resnet18

.PHONY: help setup demo test coverage check docs fuzz faults soak mutation export build-engine bench report gallery gpu-test clean

help:
	@echo "make demo          a trained ResNet becomes FP32, FP16 and INT8 engines, is measured and judged"
	@echo "make test          the test suite"
	@echo "make coverage      the same, with the lines and branches that it reaches: half as long again"
	@echo "make check         lint, types, floors, sizes"
	@echo "make fuzz          10,000 mutants of each kind of file, by night"
	@echo "make faults        whole commands killed, refused, on a full disk, in another year, by night"
	@echo "make soak          a million calls on 8 threads: memory, descriptors, threads"
	@echo "make mutation      which changes of the code no test notices (installs mutmut)"
	@echo "make export        RECIPE=...  the final ONNX graph, checked against the reference"
	@echo "make build-engine  RECIPE=...  the engine that a recipe describes"
	@echo "make bench         RECIPE=...  latency, throughput and accuracy against the reference"
	@echo "make report        the last bench as a page"
	@echo "make docs          the documentation as a site, in build/site"
	@echo "make gallery       results that users shared, by device, as a page"
	@echo "make gpu-test      everything that this machine's GPU can build and run"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[$(EXTRAS)]'
	$(BIN)/python -m pip install -q --no-deps rapidocr==3.10.0  # its wheel carries a classifier that PaddlePaddle exported, for a test
	touch $@

demo: $(STAMP)
	$(BIN)/toolkit build $(foreach p,fp32 fp16 int8,engines/$(MODEL)-$(p).toml)
	$(BIN)/toolkit build engines/$(MODEL)-int8.toml --target rtx --if-available
	$(BIN)/toolkit bench $(foreach p,fp32 fp16 int8,$(BUILT)/$(MODEL)-$(p)) --quick -o results.json
	$(BIN)/toolkit report results.json -o report.html
	@echo
	@echo "The engines are in $(BUILT)/. Ask one:  $(BIN)/toolkit run $(BUILT)/$(MODEL)-int8 pictures/boot.png"
	@echo "Your own model, in ten minutes:  docs/tutorial.md"

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal --durations=20 -m "not slow"

coverage: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" --cov --cov-report=term

fuzz: $(STAMP)
	$(BIN)/python -m tests.fuzz.nightly

faults: $(STAMP)
	$(BIN)/python -m tests.faults.nightly

soak: $(STAMP)
	$(BIN)/python -m tests.faults.soak

mutation: $(STAMP)
	$(BIN)/python -m pip install -q mutmut==3.8.1
	$(BIN)/python -m tests.mutation.run

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_floors.py tests/test_sizes.py

export: $(STAMP)
	$(BIN)/toolkit export $(RECIPE) -o $(NAME).onnx

build-engine: $(STAMP)
	$(BIN)/toolkit build $(RECIPE)

bench: build-engine
	$(BIN)/toolkit bench $(BUILT)/$(NAME) -o results.json

report: $(STAMP)
	$(BIN)/toolkit report results.json -o report.html

docs: $(STAMP)
	$(BIN)/python docs/_site/build.py

gallery: $(STAMP)
	$(BIN)/python benchmarks/gallery.py -o gallery.html

gpu-test: $(STAMP)
	$(BIN)/python benchmarks/gpu.py

clean:
	rm -rf $(BUILT) report.html results.json
