// A run: what the command line asked for, what was chosen for it, and everything that is open while
// it trains. train_gpt.c fills it from top to bottom; the files of run/ that take a Run share it.
#ifndef RUN_RUN_H
#define RUN_RUN_H

#include "comm.h"      // collectives of several ranks
#include "launch.h"    // which rank this process is
#include "loader.h"    // training batches
#include "log.h"       // what a run says and keeps
#include "mfu.h"       // how near the GPU is to its peak
#include "optimizer.h" // Turbo-Muon and Adam
#include "options.h"   // the command line
#include "peers.h"     // the other ranks
#include "sharded.h"   // the optimizer of several ranks
#include "state.h"     // checkpoints of a run
#include "unigram.h"   // the loss to beat
#include "val.h"       // validation batches

typedef struct {
    Options options;
    Recipe recipe;
    bool real_storage, usage; // usage: what was refused is the command line
    bool chose_device;        // it was given, not left to the program
    bool shared_failure;      // every rank ends with the same message
    const Ops *ops;
    char device[640];              // the GPU, or why there is none
    const char *version, *program; // of the source; as it was called
    char folder[512], checkpoints[576];
    char saved[FILE_PATH_MAX]; // the last checkpoint, "" before there is one
    int saved_step;
    char train_files[1024], val_files[1024];
    Safetensors resume; // open while a run resumes
    bool resuming;
    Gpt *gpt;
    Optimizer optimizer; // of a run alone
    RankEnv env;
    Peers *peers;             // NULL alone, as
    Comm *comm;               // this is
    ShardedOptimizer sharded; // of several ranks
    Unigram unigram;
    Loader *loader;
    Batch *batches; // of this rank in one step (micro_batches / world)
    Val val;
    struct HellaSwag *hellaswag; // NULL without --hellaswag
    Log *log;
    TrainState state;
    Flops peak, measured; // of the device a second: by its name, and in a product at start-up
    int end;              // training steps in all
    int stop;             // the signal on which the ranks agreed to stop, or 0
    Timeline *timeline;   // of rank 0, until it is written; NULL without --timeline
    double exposed_ms;    // that rank 0's device stood still for communication, if measured
} Run;

#endif
