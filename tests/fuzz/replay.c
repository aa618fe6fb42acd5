/*
 * replay.c - every target over its seeds, with any compiler and without libFuzzer.
 *
 * replay DIR [TARGET...]: DIR/TARGET/ holds the files.  The files run in a child, so
 * that one that crashes costs only itself: its name is printed and a new child goes
 * on behind it.  Ends with "N passed, N failed", and 1 if anything failed or a
 * target has no seeds.
 */
#include "base/base.h"
#include "tests/fuzz/fuzz.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define FILE_MAX    (16 * 1024 * 1024)
#define LEAK_STATUS 99

#if defined(__SANITIZE_ADDRESS__)
int __lsan_do_recoverable_leak_check(void);
#define LEAKS() (__lsan_do_recoverable_leak_check() != 0)
#else
#define LEAKS() false
#endif

int __llvm_profile_write_file(void) __attribute__((weak)); /* in a build that counts lines */

struct target {
    const char *name;
    void (*run)(const uint8_t *data, size_t len);
};

#define ROW(name) { #name, fuzz_##name },
static const struct target targets[] = { FUZZ_TARGETS(ROW) };

static size_t passed, failed;
static volatile size_t *position; /* shared with the child: the file it is at */

static int is_seed(const struct dirent *e)
{
    return e->d_name[0] != '.';
}

static uint8_t *read_file(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    struct stat st;
    if (!f || fstat(fileno(f), &st) != 0 || !S_ISREG(st.st_mode) || st.st_size > FILE_MAX) {
        fprintf(stderr, "%s: cannot be read\n", path);
        _exit(1);
    }
    uint8_t *data = xmalloc((size_t)st.st_size);
    *len = fread(data, 1, (size_t)st.st_size, f);
    fclose(f);
    return data;
}

static _Noreturn void run_files(const struct target *t, const char *dir, struct dirent **files,
                                size_t from, size_t count)
{
    for (size_t i = from; i < count; i++) {
        char path[4096];
        size_t len;
        *position = i;
        snprintf(path, sizeof(path), "%s/%s", dir, files[i]->d_name);
        uint8_t *data = read_file(path, &len);
        t->run(data, len);
        free(data);
        if (LEAKS())
            _exit(LEAK_STATUS);
    }
    *position = count;
    if (__llvm_profile_write_file)
        __llvm_profile_write_file();
    _exit(0);
}

static void run_target(const struct target *t, const char *root)
{
    char dir[2048];
    struct dirent **files;
    snprintf(dir, sizeof(dir), "%s/%s", root, t->name);
    int n = scandir(dir, &files, is_seed, alphasort);
    size_t count = n > 0 ? (size_t)n : 0, bad = 0;
    if (count == 0) {
        printf("FAIL %s: no seeds\n", dir);
        failed++;
        return;
    }
    for (size_t at = 0; at < count;) {
        int status;
        fflush(stdout);
        pid_t child = fork();
        if (child == 0)
            run_files(t, dir, files, at, count);
        waitpid(child, &status, 0);
        at = *position;
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && at == count)
            break;
        printf("FAIL %s/%s%s\n", dir, files[at]->d_name,
               WIFEXITED(status) && WEXITSTATUS(status) == LEAK_STATUS ? " (leak)" : "");
        bad++;
        at++;
    }
    printf("%-16s %zu passed, %zu failed\n", t->name, count - bad, bad);
    passed += count - bad;
    failed += bad;
    for (size_t i = 0; i < count; i++)
        free(files[i]);
    free(files);
}

static bool wanted(const char *name, int argc, char **argv)
{
    for (int i = 2; i < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return true;
    return argc <= 2;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: replay DIR [TARGET...]\n");
        return 2;
    }
    position =
        mmap(NULL, sizeof(*position), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (size_t i = 0; i < ARRAY_LEN(targets); i++)
        if (wanted(targets[i].name, argc, argv))
            run_target(&targets[i], argv[1]);
    printf("fuzz seeds: %zu passed, %zu failed\n", passed, failed);
    return failed > 0 || passed == 0;
}
