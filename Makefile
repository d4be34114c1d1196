# turbomuon.c needs gcc (or clang) and make. OpenMP and OpenBLAS are used where a trial compile
# finds them. `make help` lists the targets.
CC      ?= gcc
BUILD   ?= build
WARN     = -std=c11 -Wall -Wextra -Werror -Wno-unknown-pragmas -D_GNU_SOURCE
OPT     ?= -O3 -march=native -fno-math-errno
CFLAGS  ?= $(OPT) -g
LDLIBS   = -lm -lpthread

# try SOURCE-LINE, FLAGS: FLAGS when a program with that line compiles and links with them.
try = $(shell printf '%s\nint main(void){return 0;}\n' '$(1)' | $(CC) -x c - -o /dev/null $(2) 2>/dev/null && echo '$(2)')
OPENMP  := $(call try,\#include <omp.h>,-fopenmp)
# OpenBLAS by BLAS=1 (default when found); BLAS=0 uses our own product.
BLAS    ?= 1
ifeq ($(BLAS),1)
OPENBLAS := $(call try,\#include <cblas.h>$(shell echo)int openblas_get_parallel(void);,-lopenblas)
endif
