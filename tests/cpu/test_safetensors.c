// safetensors files: round trips, damage found wherever it is, and Python's library on both sides.
#include "../../run/safetensors.h"
#include "../test.h"

#include <fcntl.h>    // open
#include <stdlib.h>   // mkdtemp, system
#include <sys/stat.h> // stat, mkfifo
#include <unistd.h>   // unlink, rmdir, truncate, pread, pwrite

static char folder[64];

static const char *at(const char *name)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void spill(const char *path, const void *bytes, size_t size)
{
    FILE *out = fopen(path, "wb");
    if (size) fwrite(bytes, 1, size, out);
    fclose(out);
}

// ---- round trips

static const double kF64[] = {1.5, -0.0};
static const float kF32[] = {1, 2, 3, 4, 5, 6};
static const uint16_t kHalf[] = {0x3f80, 0x7fc0, 0x0001}, kScalar[] = {0x3c00};
static const int64_t kI64[] = {INT64_MIN, -1, INT64_MAX};
static const int32_t kI32[] = {INT32_MIN, 7};
static const uint8_t kU8[] = {0, 255, 10, 34, 92};

// Names and layout on purpose not in the order of their sizes.
static const SafetensorsTensor kTensors[] = {
    {"u8", ST_U8, 1, {5}, kU8},
    {"a.f32", ST_F32, 2, {2, 3}, kF32},
    {"bf16 \"quoted\\\" \xc3\xa9\xe6\x97\xa5\xf0\x9f\x98\x80", ST_BF16, 3, {1, 3, 1}, kHalf},
    {"scalar", ST_F16, 0, {0}, kScalar},
    {"i64", ST_I64, 1, {3}, kI64},
    {"none", ST_F32, 2, {0, 4}, NULL},
    {"", ST_I32, 1, {2}, kI32},
    {"f64", ST_F64, 8, {1, 1, 1, 2, 1, 1, 1, 1}, kF64},
};
enum { kCount = sizeof kTensors / sizeof *kTensors };

static void save_small(const char *path)
{
    Error err = {""};
    Metadata metadata = {0};
    CHECK(metadata_put_string(&metadata, "text", "line\nof \"text\" \\ \t\x01\x7f \xc3\xa9", &err));
    CHECK(metadata_put_int64(&metadata, "int", INT64_MIN, &err));
    CHECK(metadata_put_double(&metadata, "double", 0.1, &err));
    CHECK(safetensors_save(path, kTensors, kCount, &metadata, &err), "%s", err.text);
    metadata_free(&metadata);
}

TEST(all_dtypes_come_back)
{
    Error err = {""};
    Safetensors file;
    char path[128], bytes[64];
    snprintf(path, sizeof path, "%s", at("small"));
    save_small(path);
    CHECK(safetensors_open(&file, path, &err), "%s", err.text);
    CHECK(file.header.count == kCount && file.guarded && file.data_at % 64 == 0);
    CHECK(safetensors_verify(&file, &err), "%s", err.text);
    for (int i = 0; i < kCount; i++) {
        const SafetensorsTensor *t = &kTensors[i];
        const SafetensorsEntry *entry = safetensors_header_find(&file.header, t->name);
        CHECK(entry && entry->has_checksum, "%s", t->name);
        CHECK(entry && entry->begin % safetensors_dtype_size(t->dtype) == 0, "%s", t->name);
        CHECK(safetensors_read(&file, t->name, t->dtype, t->ndim, t->shape, bytes, &err), "%s",
              err.text);
        CHECK(!entry || !entry->bytes || !memcmp(bytes, t->data, entry->bytes), "%s", t->name);
    }
    const char *text = "";
    int64_t integer = 0;
    double number = 0;
    Metadata *metadata = &file.header.metadata;
    CHECK(metadata_get_string(metadata, "text", &text, &err) &&
          !strcmp(text, "line\nof \"text\" \\ \t\x01\x7f \xc3\xa9"));
    CHECK(metadata_get_int64(metadata, "int", &integer, &err) && integer == INT64_MIN);
    CHECK(metadata_get_double(metadata, "double", &number, &err) && number == 0.1);
    CHECK(!metadata_get_int64(metadata, "text", &integer, &err));
    CHECK(!metadata_get_int64(metadata, "double", &integer, &err));
    CHECK(!metadata_get_double(metadata, "text", &number, &err));
    CHECK(!metadata_get_string(metadata, "nothing", &text, &err) && strstr(err.text, "nothing"));

    CHECK(!safetensors_read(&file, "absent", ST_U8, 0, NULL, bytes, &err));
    CHECK(!safetensors_read(&file, "u8", ST_I32, 1, (int64_t[]){5}, bytes, &err));
    CHECK(!safetensors_read(&file, "a.f32", ST_F32, 2, (int64_t[]){3, 2}, bytes, &err));
    CHECK(strstr(err.text, "F32 (2,3)") && strstr(err.text, "F32 (3,2)"), "%s", err.text);
    CHECK(!safetensors_read(&file, "a.f32", ST_F32, 9, (int64_t[9]){0}, bytes, &err));
    safetensors_close(&file);
    unlink(path);
}

TEST(many_tensors_and_none)
{
    enum { kMany = 3000 };
    static char names[kMany][24];
    static SafetensorsTensor tensors[kMany];
    static int32_t values[kMany][2];
    Error err = {""};
    Metadata none = {0};
    Safetensors file;
    for (int i = 0; i < kMany; i++) {
        snprintf(names[i], sizeof names[i], "layer.%d", i);
        values[i][0] = i, values[i][1] = -i;
        tensors[i] = (SafetensorsTensor){names[i], ST_I32, 1, {i % 3}, values[i]};
    }
    CHECK(safetensors_save(at("many"), tensors, kMany, &none, &err), "%s", err.text);
    CHECK(safetensors_open(&file, at("many"), &err), "%s", err.text);
    CHECK(file.header.count == kMany && safetensors_verify(&file, &err), "%s", err.text);
    for (int i = 0; i < kMany; i++) {
        int32_t back[2] = {0};
        CHECK(safetensors_read(&file, names[i], ST_I32, 1, tensors[i].shape, back, &err));
        CHECK(!memcmp(back, values[i], (size_t)(i % 3) * 4), "%d", i);
    }
    safetensors_close(&file);
    CHECK(safetensors_save(at("many"), NULL, 0, &none, &err), "%s", err.text);
    CHECK(safetensors_open(&file, at("many"), &err) && file.header.count == 0, "%s", err.text);
    safetensors_close(&file);
    unlink(at("many"));
}

TEST(saving_refuses_what_no_file_can_hold)
{
    Error err = {""};
    Metadata none = {0}, reserved = {0}, twice = {0};
    SafetensorsTensor same[] = {{"x", ST_U8, 1, {1}, kU8}, {"x", ST_U8, 1, {1}, kU8}};
    SafetensorsTensor latin1 = {"caf\xe9", ST_U8, 1, {1}, kU8}, line = {"a\nb", ST_U8, 1, {1}, kU8},
                      negative = {"n", ST_U8, 1, {-1}, kU8},
                      key = {"__metadata__", ST_U8, 0, {0}, kU8},
                      huge = {"h", ST_F64, 2, {INT64_MAX / 4, 4}, kU8};
    CHECK(!safetensors_save(at("x"), same, 2, &none, &err) && strstr(err.text, "twice"));
    CHECK(!safetensors_save(at("x"), &latin1, 1, &none, &err) && strstr(err.text, "UTF-8"));
    CHECK(!safetensors_save(at("x"), &line, 1, &none, &err) && strstr(err.text, "control"));
    CHECK(!safetensors_save(at("x"), &negative, 1, &none, &err));
    CHECK(!safetensors_save(at("x"), &key, 1, &none, &err));
    CHECK(!safetensors_save(at("x"), &huge, 1, &none, &err));
    metadata_put_string(&reserved, "checksum.x", "", &err);
    CHECK(!safetensors_save(at("x"), NULL, 0, &reserved, &err) && strstr(err.text, "reserved"));
    metadata_put_string(&twice, "k", "1", &err);
    metadata_put_string(&twice, "k", "2", &err);
    CHECK(!safetensors_save(at("x"), NULL, 0, &twice, &err) && strstr(err.text, "twice"));
    CHECK(access(at("x"), F_OK) != 0);
    metadata_free(&reserved);
    metadata_free(&twice);
}

// ---- damage

// Whether the file opens and all its checksums are right.
static bool sound(const char *path, Error *err)
{
    Safetensors file;
    if (!safetensors_open(&file, path, err)) return false;
    bool ok = safetensors_verify(&file, err) && file.guarded;
    safetensors_close(&file);
    return ok;
}

TEST(a_file_cut_anywhere_is_refused)
{
    Error err = {""};
    struct stat info = {0};
    char path[128];
    snprintf(path, sizeof path, "%s", at("cut"));
    save_small(path);
    CHECK(sound(path, &err), "%s", err.text);
    stat(path, &info);
    CHECK(truncate(path, info.st_size + 1) == 0 && !sound(path, &err), "one byte too many");
    for (off_t cut = info.st_size; cut-- > 0;)
        CHECK(truncate(path, cut) == 0 && !sound(path, &err), "cut at %d", (int)cut);
    unlink(path);
}

TEST(every_flipped_bit_is_found)
{
    Error err = {""};
    Safetensors file;
    uint8_t back[5], byte = 0;
    char path[128];
    snprintf(path, sizeof path, "%s", at("flipped"));
    save_small(path);
    int fd = open(path, O_RDWR), size = (int)lseek(fd, 0, SEEK_END);
    for (int bit = 0; bit < size * 8; bit++) {
        CHECK(pread(fd, &byte, 1, bit / 8) == 1);
        byte ^= (uint8_t)(1 << bit % 8);
        CHECK(pwrite(fd, &byte, 1, bit / 8) == 1 && !sound(path, &err), "bit %d", bit);
        byte ^= (uint8_t)(1 << bit % 8);
        CHECK(pwrite(fd, &byte, 1, bit / 8) == 1);
    }
    CHECK(sound(path, &err), "%s", err.text);

    byte ^= 1; // the last byte of the last tensor
    CHECK(pwrite(fd, &byte, 1, size - 1) == 1 && !sound(path, &err));
    CHECK(strstr(err.text, "is corrupt: tensor \"u8\" fails its checksum"), "%s", err.text);
    CHECK(safetensors_open(&file, path, &err), "%s", err.text);
    CHECK(!safetensors_read(&file, "u8", ST_U8, 1, (int64_t[]){5}, back, &err));
    CHECK(strstr(err.text, path) && strstr(err.text, "fails its checksum"), "%s", err.text);
    safetensors_close(&file);
    close(fd);
    unlink(path);
}

TEST(what_is_not_a_file_is_refused)
{
    Error err = {""};
    Safetensors file;
    CHECK(!safetensors_open(&file, folder, &err) && strstr(err.text, "is a folder"), "%s",
          err.text);
    CHECK(!safetensors_open(&file, at("absent"), &err) && strstr(err.text, "No such file"));
    CHECK(mkfifo(at("pipe"), 0600) == 0);
    CHECK(!safetensors_open(&file, at("pipe"), &err) && strstr(err.text, "pipe"), "%s", err.text);
    CHECK(!safetensors_open(&file, "/dev/zero", &err));
    unlink(at("pipe"));
    spill(at("text"), "once upon a time, there was no header", 37);
    CHECK(!safetensors_open(&file, at("text"), &err) && strstr(err.text, "not a safetensors file"));
    unlink(at("text"));
}

// ---- Python

static const char kPython[] =
    "import sys, numpy as np\n"
    "from safetensors import safe_open\n"
    "from safetensors.numpy import save_file\n"
    "with safe_open(sys.argv[1], 'np') as f:\n"
    "    m = f.metadata()\n"
    "    assert m['text'] == 'line\\nof \"text\" \\\\ \\t\\x01\\x7f \\xe9' and m['double'] == "
    "'0.10000000000000001'\n"
    "    assert len(f.keys()) == 8, f.keys()\n"
    "    assert (f.get_tensor('a.f32') == [[1, 2, 3], [4, 5, 6]]).all()\n"
    "    assert f.get_tensor('scalar').shape == () and f.get_tensor('scalar') == 1\n"
    "    assert f.get_tensor('i64').tolist() == [-2**63, -1, 2**63 - 1]\n"
    "    assert f.get_tensor('none').shape == (0, 4) and f.get_tensor('').tolist() == [-2**31, 7]\n"
    "    assert f.get_tensor('u8').tobytes() == b'\\x00\\xff\\n\\x22\\x5c'\n"
    "    s = f.get_slice('bf16 \"quoted\\\\\" \\xe9\\u65e5\\U0001f600')\n"
    "    assert s.get_shape() == [1, 3, 1] and s.get_dtype() == 'BF16'\n"
    "save_file({'w\\xe9\"': np.arange(6, dtype=np.float32).reshape(2, 3), 's': np.array(3),\n"
    "           'h': np.zeros((0, 2), np.float16)}, sys.argv[2], {'step': '7'})\n";

TEST(python_reads_ours_and_we_read_its)
{
    char command[512];
    if (system("python3 -c 'import numpy, safetensors' 2>/dev/null")) {
        printf("skip: no python3 with numpy and safetensors\n");
        return;
    }
    Error err = {""};
    Safetensors file;
    save_small(at("small"));
    spill(at("script"), kPython, strlen(kPython));
    snprintf(command, sizeof command, "cd %s && python3 script small theirs", folder);
    CHECK(system(command) == 0);
    CHECK(safetensors_open(&file, at("theirs"), &err), "%s", err.text);
    float w[6] = {0};
    int64_t s = 0, step = 0;
    CHECK(safetensors_read(&file, "w\xc3\xa9\"", ST_F32, 2, (int64_t[]){2, 3}, w, &err), "%s",
          err.text);
    CHECK(w[5] == 5);
    CHECK(safetensors_read(&file, "s", ST_I64, 0, NULL, &s, &err) && s == 3, "%s", err.text);
    CHECK(safetensors_read(&file, "h", ST_F16, 2, (int64_t[]){0, 2}, NULL, &err), "%s", err.text);
    CHECK(metadata_get_int64(&file.header.metadata, "step", &step, &err) && step == 7);
    CHECK(!file.guarded && safetensors_verify(&file, &err));
    safetensors_close(&file);
    unlink(at("small")), unlink(at("theirs")), unlink(at("script"));
}

TEST(no_file_is_left) { CHECK(rmdir(folder) == 0, "something is in %s", folder); }

int main(void)
{
    snprintf(folder, sizeof folder, "/tmp/test_safetensors_XXXXXX");
    if (!mkdtemp(folder)) return perror(folder), 1;
    RUN(all_dtypes_come_back);
    RUN(many_tensors_and_none);
    RUN(saving_refuses_what_no_file_can_hold);
    RUN(a_file_cut_anywhere_is_refused);
    RUN(every_flipped_bit_is_found);
    RUN(what_is_not_a_file_is_refused);
    RUN(python_reads_ours_and_we_read_its);
    RUN(no_file_is_left);
    return TEST_SUMMARY();
}
