# turbomuon.c needs a C compiler and make. OpenMP is used where a trial program compiles and links
# with it, OpenBLAS too when BLAS=1 asks for it; `make help` lists the targets.
ifeq ($(origin CC),default)
CC       = gcc
endif
BUILD   ?= build
OPT     ?= -O3 -march=native
CFLAGS  ?= $(OPT) -g
ALL_CFLAGS = -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -Wno-unknown-pragmas -fno-math-errno \
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

SRC   := $(wildcard *.c gpt/*.c run/*.c ops/*.c ops/cpu/*.c)
LIB   := $(patsubst %.c,$(BUILD)/%.o,$(filter-out train_gpt.c,$(SRC))) \
         $(patsubst %.c,$(BUILD)/%.f64.o,$(wildcard ops/cpu/*.c))
DATA  := $(patsubst %.c,$(BUILD)/%.o,$(filter-out data/make_corpus.c,$(wildcard data/*.c)))
TESTS := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/cpu/test_*.c))
FUZZ  := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/fuzz/fuzz_*.c))
CORPUS := data/corpus/corpus_val_000000.bin

.PHONY: train all test sanitize bench-matmul clean help
train: train_gpt $(CORPUS) ## build the program and the corpus it trains on by default
all: train $(TESTS) $(FUZZ)

train_gpt: $(BUILD)/train_gpt.o $(LIB)
	$(CC) -o $@ $^ $(LDLIBS)

$(BUILD)/make_corpus: $(BUILD)/data/make_corpus.o $(DATA)
	$(CC) -o $@ $^ $(LDLIBS)

$(CORPUS): $(BUILD)/make_corpus
	$(BUILD)/make_corpus -o $(@D)

# Everything is built again when the compiler or its flags change.
FLAGS := $(CC) $(ALL_CFLAGS) $(LDLIBS)
$(shell mkdir -p $(BUILD); echo '$(FLAGS)' | cmp -s - $(BUILD)/flags || echo '$(FLAGS)' >$(BUILD)/flags)

$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -MMD -c $< -o $@

$(BUILD)/%.f64.o: %.c $(BUILD)/flags # the CPU device once more, in double
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -DREAL_DOUBLE -MMD -c $< -o $@

$(BUILD)/ops/cpu/matmul.o $(BUILD)/ops/cpu/matmul.f64.o: EXTRA += $(if $(BLASLIB),-DUSE_OPENBLAS)

$(BUILD)/tests/%: $(BUILD)/tests/%.o $(LIB) $(DATA)
	$(CC) -o $@ $^ $(LDLIBS)

$(BUILD)/tests/fuzz/%: $(BUILD)/tests/fuzz/%.o $(BUILD)/tests/fuzz/driver.o $(LIB) $(DATA)
	$(CC) -o $@ $^ $(LDLIBS)

test: train $(TESTS) $(FUZZ) ## build and run every test; the last line counts them
	@tests/run.sh $(BUILD)

bench-matmul: $(BUILD)/bench/matmul_bench ## our matrix product beside OpenBLAS, where that is found
	$<

$(BUILD)/bench/matmul_bench: bench/matmul_bench.c ops/cpu/matmul.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(if $(TRY_BLAS),-DUSE_OPENBLAS) $^ -o $@ $(TRY_BLAS) $(LDLIBS)

sanitize: ## the tests under the address and undefined-behaviour sanitizers
	$(MAKE) BUILD=build/sanitize OPT=-O2 BLAS=0 OMP=0 \
	    EXTRA='-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer' test

clean: ## remove everything built, the corpus included
	rm -rf $(BUILD) train_gpt data/corpus

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
