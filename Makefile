# turbomuon.c needs a C compiler and make. OpenMP is used where a trial program compiles and links
# with it, OpenBLAS too when BLAS=1 asks for it; `make help` lists the targets.
ifeq ($(origin CC),default)
CC       = gcc
endif
BUILD   ?= build
OPT     ?= -O3 -march=native
CFLAGS  ?= $(OPT) -g
ALL_CFLAGS = -std=c11 -D_GNU_SOURCE -Wall -Wextra $(WERROR) -Wno-unknown-pragmas -fno-math-errno \
             $(SIMD) $(OPENMP) $(CFLAGS) $(EXTRA)
LDLIBS   = $(OPENMP) $(BLASLIB) $(EXTRA) -lm -lpthread

# $(call try,C SOURCE,FLAGS) is FLAGS when a program of that source compiles and links with them.
try = $(shell printf '%b\n' '$(1)' | $(CC) -x c - -o /dev/null $(2) >/dev/null 2>&1 && echo '$(2)')
# OMP=0 builds without OpenMP. BLAS=1 takes OpenBLAS's matrix products instead of our own, which are
# as fast (bench/RESULTS.md) and do not compete with OpenMP for the cores.
OMP     ?= 1
BLAS    ?= 0
ifeq ($(OMP),1)
OPENMP  := $(call try,int omp_get_max_threads(void); int main(void) { return !omp_get_max_threads(); },-fopenmp)
endif
ifeq ($(OPENMP),)
SIMD    := $(call try,int main(void) { return 0; },-fopenmp-simd)
endif
BLAS_SOURCE = \#include <cblas.h>\nint main(void) { float x = 0; openblas_set_num_threads(1); \
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, 1, 1, 1, x, &x, 1, &x, 1, x, &x, 1); return 0; }
TRY_BLAS = $(call try,$(BLAS_SOURCE),-lopenblas)
ifeq ($(BLAS),1)
BLASLIB := $(TRY_BLAS)
endif

# The GPU's device is built too where nvcc compiles and links a trial program with cuBLASLt; CUDA=0
# leaves it out. The trial is repeated when nvcc's version or the flags below change.
CUDA    ?= 1
comma   := ,
ifneq ($(CUDA),0)
ifeq ($(origin NVCC),undefined)
NVCC    := $(firstword $(shell command -v nvcc 2>/dev/null) $(wildcard /usr/local/cuda/bin/nvcc))
endif
endif
# Hopper's own code, and PTX for whatever else can run bf16; files named for Hopper have no such PTX.
# PORTABLE=1 leaves Hopper's out of the others, so that any GPU compiles what an sm_80 would run.
HOPPER     := -gencode=arch=compute_90a,code=sm_90a
CUDA_ARCH  ?= $(if $(PORTABLE),,$(HOPPER)) -gencode=arch=compute_80,code=compute_80
NVCC_FLAGS  = -O3 -std=c++17 -lineinfo --threads 1 $(CUDA_ARCH) $(if $(WERROR),-Werror all-warnings) \
              -Xptxas -warn-spills -Xcompiler -Wall,-Wextra \
              $(if $(findstring -fPIC,$(EXTRA)),-Xcompiler -fPIC)
ifneq ($(NVCC),)
TRIAL   := $(BUILD)/nvcc_trial
NVCC_ID := $(NVCC) $(shell $(NVCC) --version 2>/dev/null | tail -n 1) $(CUDA_ARCH)
HAVE_CUDA := $(shell grep -sqxF '$(NVCC_ID)' $(TRIAL).passed || { mkdir -p $(BUILD); \
  printf '\043include <cublasLt.h>\nint main() { return cublasLtGetVersion() == 0; }\n' >$(TRIAL).cu; \
  $(NVCC) $(CUDA_ARCH) $(TRIAL).cu -o $(TRIAL) -lcublasLt >$(TRIAL).log 2>&1 && \
  echo '$(NVCC_ID)' >$(TRIAL).passed; }; grep -sqxF '$(NVCC_ID)' $(TRIAL).passed && echo 1)
ifeq ($(HAVE_CUDA),)
$(warning $(NVCC) does not build a trial program (see $(TRIAL).log): building for the CPU alone)
endif
endif
ifeq ($(HAVE_CUDA),1)
CUDA_OBJ  := $(patsubst %.cu,$(BUILD)/%.cu.o,$(wildcard *.cu ops/cuda/*.cu)) \
             $(patsubst %.c,$(BUILD)/%.o,$(wildcard run/cuda/*.c))
CUDA_DIRS := $(shell $(NVCC) --dryrun -x cu /dev/null 2>&1 | sed -n 's/.*LIBRARIES= *//p' | tr -d '"')
CUDA_INC  := $(shell $(NVCC) --dryrun -x cu /dev/null 2>&1 | sed -n 's/.*INCLUDES= *//p' | tr -d '"')
CUDA_LIBS := $(CUDA_DIRS) $(patsubst -L%,-Wl$(comma)-rpath$(comma)%,$(filter-out %/stubs,$(CUDA_DIRS))) \
             -lcublasLt -lcudart_static -ldl -lrt -lstdc++
endif

SRC   := $(wildcard *.c gpt/*.c run/*.c ops/*.c ops/cpu/*.c)
# The programs' own: the files that know whether there is CUDA.
MAINS := train_gpt.c run/ranks.c run/generate_main.c
LIB   := $(patsubst %.c,$(BUILD)/%.o,$(filter-out $(MAINS),$(SRC))) \
         $(patsubst %.c,$(BUILD)/%.f64.o,$(wildcard ops/cpu/*.c))
DATA  := $(patsubst %.c,$(BUILD)/%.o,$(filter-out data/make_corpus.c data/tokenize.c,$(wildcard data/*.c)))
ABLATE := $(patsubst %.c,$(BUILD)/%.o,$(filter-out ablate/search.c ablate/ablations.c ablate/verdict.c,$(wildcard ablate/*.c)))
CUDA_TESTS := $(if $(CUDA_OBJ),$(patsubst %.cu,$(BUILD)/%,$(wildcard tests/cpu/test_*.cu))) # of its host code
TESTS := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/cpu/test_*.c)) $(CUDA_TESTS)
GPU_TESTS := $(if $(CUDA_OBJ),$(patsubst %.c,$(BUILD)/%,$(wildcard tests/gpu/test_*.c)))
FUZZ  := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/fuzz/fuzz_*.c))
CORPUS := data/corpus/corpus_val_000000.bin

.SECONDARY: # keep what was built on the way
.PHONY: lib ablations search verdict train all test test-gpu test-gpus run-gpu-tests sanitize sanitize-gpu bench-matmul clean help
train: train_gpt generate $(CORPUS) ## build the program and the corpus it trains on by default
all: train tokenize search ablations verdict $(TESTS) $(GPU_TESTS) $(FUZZ) $(if $(CUDA_OBJ),$(BUILD)/bench/ns_bench)

train_gpt: $(BUILD)/train_gpt
	cp -f $< $@

generate: $(BUILD)/generate
	cp -f $< $@

$(BUILD)/generate: $(BUILD)/run/generate_main.o $(LIB) $(CUDA_OBJ)
	$(CC) -o $@ $^ $(LDLIBS) $(CUDA_LIBS)

$(BUILD)/train_gpt: $(BUILD)/train_gpt.o $(BUILD)/run/ranks.o $(LIB) $(CUDA_OBJ)
	$(CC) -o $@ $^ $(LDLIBS) $(CUDA_LIBS)

tokenize: $(BUILD)/tokenize ## build the program that makes shards of any text
	cp -f $< $@

$(BUILD)/tokenize: $(BUILD)/data/tokenize.o $(LIB) $(DATA)
	$(CC) -o $@ $^ $(LDLIBS)

ablations: $(BUILD)/ablations ## the program that compares orthogonalisers (scripts/ablate.sh)
search: $(BUILD)/search ## the program that searches for coefficients (build/search)
verdict: $(BUILD)/verdict ## the program that judges runs of the speedrun (scripts/speedrun.sh)

$(BUILD)/search $(BUILD)/ablations $(BUILD)/verdict: $(BUILD)/%: $(BUILD)/ablate/%.o $(ABLATE) $(LIB)
	$(CC) -o $@ $^ $(LDLIBS)

$(BUILD)/make_corpus: $(BUILD)/data/make_corpus.o $(LIB) $(DATA)
	$(CC) -o $@ $^ $(LDLIBS)

$(CORPUS): $(BUILD)/make_corpus
	$(BUILD)/make_corpus -o $(@D)

# Everything is built again when the compiler or its flags change.
FLAGS := $(CC) $(ALL_CFLAGS) $(LDLIBS)
$(shell mkdir -p $(BUILD); echo '$(FLAGS)' | cmp -s - $(BUILD)/flags || echo '$(FLAGS)' >$(BUILD)/flags)

$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -MMD -MP -c $< -o $@

$(BUILD)/%.f64.o: %.c $(BUILD)/flags # the CPU device once more, in double
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -DREAL_DOUBLE -MMD -MP -c $< -o $@

# What CUDA changes: its kernels, and the program that knows of it.
FLAGS_CUDA := $(if $(CUDA_OBJ),$(NVCC_ID) $(NVCC_FLAGS))
$(shell echo '$(FLAGS_CUDA)' | cmp -s - $(BUILD)/flags_cuda || echo '$(FLAGS_CUDA)' >$(BUILD)/flags_cuda)

$(BUILD)/%.cu.o: %.cu $(BUILD)/flags_cuda
	@mkdir -p $(@D)
	$(NVCC) $(NVCC_FLAGS) -MMD -MP -MT $@ -MF $(@:.o=.d) -c $< -o $@

$(patsubst %,$(BUILD)/%.o,$(wildcard ops/cuda/*hopper*.cu)): CUDA_ARCH = $(HOPPER)

$(patsubst %.c,$(BUILD)/%.o,$(MAINS)): $(BUILD)/flags_cuda
$(patsubst %.c,$(BUILD)/%.o,$(MAINS)): EXTRA += $(if $(CUDA_OBJ),-DUSE_CUDA)

$(BUILD)/ops/cpu/matmul.o $(BUILD)/ops/cpu/matmul.f64.o: EXTRA += $(if $(BLASLIB),-DUSE_OPENBLAS)

$(BUILD)/tests/%: $(BUILD)/tests/%.o $(LIB) $(DATA) $(ABLATE)
	$(CC) -o $@ $^ $(LDLIBS)

$(CUDA_TESTS): $(BUILD)/%: $(BUILD)/%.cu.o
	$(CC) -o $@ $^ $(LDLIBS) $(CUDA_LIBS)

$(BUILD)/tests/fuzz/%: $(BUILD)/tests/fuzz/%.o $(BUILD)/tests/fuzz/driver.o $(LIB) $(DATA)
	$(CC) -o $@ $^ $(LDLIBS)

$(BUILD)/tests/gpu/%.o $(BUILD)/run/cuda/%.o: EXTRA += $(CUDA_INC)

$(BUILD)/tests/gpu/test_polar_cuda: $(BUILD)/bench/polar_cuda.cu.o $(BUILD)/bench/inputs_cuda.cu.o $(ABLATE)
$(GPU_TESTS): $(BUILD)/%: $(BUILD)/%.o $(LIB) $(CUDA_OBJ)
	$(CC) -o $@ $^ $(LDLIBS) $(CUDA_LIBS)

test-gpu: ## build and run the tests that need a GPU: with its best kernels, then with the portable ones
	@test -n "$(GPU_TESTS)" || { echo 'error: no nvcc that works, so there is nothing to test'; exit 1; }
	@failed=0; $(MAKE) run-gpu-tests || failed=1; \
	    $(MAKE) BUILD=$(BUILD)/portable PORTABLE=1 run-gpu-tests || failed=1; exit $$failed

run-gpu-tests: $(GPU_TESTS) $(BUILD)/train_gpt
	@failed=0; for test in $(GPU_TESTS); do echo $$test; TEST_GPU=1 PROGRAM=$(BUILD)/train_gpt \
	    TEST_KERNELS=$(if $(PORTABLE),portable) $$test || failed=1; done; exit $$failed

test: $(BUILD)/train_gpt $(BUILD)/generate $(BUILD)/tokenize $(BUILD)/search $(BUILD)/ablations $(BUILD)/verdict $(BUILD)/bench/comm_bench $(CORPUS) $(TESTS) $(GPU_TESTS) $(FUZZ) ## build and run every test; the last line counts them
	@tests/run.sh $(BUILD)

bench-matmul: $(BUILD)/bench/matmul_bench ## our matrix product beside OpenBLAS, where that is found
	$<

$(BUILD)/bench/matmul_bench: bench/matmul_bench.c ops/cpu/matmul.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(if $(TRY_BLAS),-DUSE_OPENBLAS) $^ -o $@ $(TRY_BLAS) $(LDLIBS)

$(BUILD)/bench/%.o: EXTRA += $(CUDA_INC)

$(BUILD)/bench/decode_bench.o $(BUILD)/bench/comm_bench.o: EXTRA += $(if $(CUDA_OBJ),-DUSE_CUDA)
$(BUILD)/bench/comm_bench: $(BUILD)/run/ranks.o
$(BUILD)/bench/decode_bench $(BUILD)/bench/comm_bench: %: %.o $(LIB) $(CUDA_OBJ)
	$(CC) -o $@ $^ $(LDLIBS) $(CUDA_LIBS)

# What is for GPUs alone.
GPU_BENCHES := $(patsubst %,$(BUILD)/bench/%_bench,attention ns op step)
ifeq ($(CUDA_OBJ),)
test-gpus $(GPU_BENCHES):
	@echo 'error: no nvcc that works, and $@ is for GPUs'; exit 1
else
test-gpus: $(BUILD)/tests/gpu/test_ranks_cuda $(BUILD)/train_gpt $(BUILD)/make_corpus ## the tests that need two GPUs
	TEST_GPU=1 $<
	PROGRAM=$(abspath $(BUILD))/train_gpt MAKE_CORPUS=$(abspath $(BUILD))/make_corpus tests/gpu/test_ranks_gpu.sh

$(BUILD)/bench/step_bench: $(BUILD)/bench/timed_ops.o
$(BUILD)/bench/ns_bench: $(patsubst %,$(BUILD)/bench/%,ns_report.o ns_time.cu.o ns_errors.cu.o \
                           polar_cuda.cu.o inputs_cuda.cu.o) $(ABLATE)
$(patsubst %,$(BUILD)/bench/%_bench,ns op step): %: %.o $(LIB) $(CUDA_OBJ)
	$(CC) -o $@ $^ $(LDLIBS) $(CUDA_LIBS)

$(BUILD)/bench/attention_bench: %: %.cu.o $(LIB) $(CUDA_OBJ)
	$(CC) -o $@ $^ $(LDLIBS) $(CUDA_LIBS)
endif

sanitize: ## the tests under the address and undefined-behaviour sanitizers
	$(MAKE) BUILD=build/sanitize OPT=-O2 BLAS=0 OMP=0 CUDA=0 \
	    EXTRA='-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer' test

sanitize-gpu: $(BUILD)/train_gpt $(CORPUS) $(BUILD)/tests/gpu/test_attention_cuda $(BUILD)/tests/gpu/test_qkv_gate_cuda ## small runs under compute-sanitizer
	tests/gpu/sanitize.sh $(BUILD)

# Position-independent objects of their own; of the library's symbols only ns.h's can be seen.
lib: ## libturbomuon.so, ns.h's orthogonalisation for other programs (scripts/orthogonalize_torch.py)
	$(MAKE) BUILD=build/lib BLAS=0 EXTRA=-fPIC build/lib/libturbomuon.so
	cp -f build/lib/libturbomuon.so .

NS_LIB := $(patsubst %,$(BUILD)/%.o,ns ops/cpu/ns ops/cpu/ns.f64 ops/cpu/matmul ops/cpu/matmul.f64)
$(BUILD)/libturbomuon.so: $(if $(CUDA_OBJ),$(LIB) $(CUDA_OBJ),$(NS_LIB))
	echo '{ global: ns_*; local: *; };' >$@.map
	$(CC) -shared -Wl,--version-script=$@.map -o $@ $^ $(LDLIBS) $(CUDA_LIBS)

clean: ## remove everything built, the corpus included
	rm -rf $(BUILD) train_gpt generate tokenize libturbomuon.so data/corpus

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
