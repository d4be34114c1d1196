// How the CPU's threads wait.
#ifndef RUN_THREADS_H
#define RUN_THREADS_H

// First statement of a program's main. Idle threads of gcc's OpenMP spin for milliseconds before
// they sleep, which makes a step ten times slower when other programs want the cores
// (bench/RESULTS.md). The setting is read only when a program starts, so this one starts once more
// with it; where that fails, it goes on without.
void threads_spin_briefly(char **argv);

#endif
