/* SPDX-License-Identifier: Apache-2.0
 *
 * pace FILE: paces the additions of a compiled product kernel, in place. A program of the build, no part of the
 * library.
 *
 * Promotion adds a tile's products to FP32 sums, sum = product * scale + sum, in runs of FFMAs that have the scale in
 * common. Meanwhile the other warpgroup's products on the tensor cores read and write their accumulators through the
 * same registers' ports, so what an FFMA reads slows them. ptxas lets every second FFMA keep the scale in its operand's
 * cache ("reuse"), and the others let other warps go first ("yield"). Three that keep it and then one that lets others
 * go first read less: the tensor cores are busy 85.8 % of the time at 8192^3, not 82.5 %; none that keeps it is slower,
 * and so are sixteen in a row, with tiles of 128x192 (bench/gpu/NOTES.md, v21). Which instructions there are, their
 * order, registers and barriers stay. What is kept is for the next instruction alone, so one that is jumped to reads
 * its registers; and nothing is kept where it has changed, as a run ends with an addition whose sum is the scale.
 *
 * An instruction of compute capability 9.0 has 128 bits, as cuobjdump prints them: the operation in bits 0 to 11, its
 * predicate in 12 to 15, destination in 16 to 23, factors in 24 to 31 and 32 to 39, what is added in 64 to 71; bit 109
 * is clear for yield, bits 122 and 123 keep the first and the second factor. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PERIOD = 4,    /* additions of which the last yields */
    SHORTEST = 8,  /* additions of a run, at least */
    FFMA = 0x7223, /* all operands in registers, without a predicate */
    EM_CUDA = 190
};

static const uint64_t YIELDS_NOT = UINT64_C(1) << (109 - 64), KEEPS = UINT64_C(3) << (122 - 64);

typedef struct instruction {
    uint64_t low, high;
} instruction;

static uint64_t read(const unsigned char *p, int bytes) { /* little-endian */
    uint64_t v = 0;
    for (int i = bytes; i-- > 0;) v = v << 8 | p[i];
    return v;
}

static void write(unsigned char *p, uint64_t v) {
    for (int i = 0; i < 8; i++) p[i] = (unsigned char)(v >> 8 * i);
}

static instruction at(const unsigned char *code, size_t i) {
    return (instruction){read(code + i * 16, 8), read(code + i * 16 + 8, 8)};
}

/* The register of a factor: the first or the second. */
static unsigned factor(instruction x, int which) { return (unsigned)(x.low >> (which ? 32 : 24)) & 0xFF; }

static unsigned sum(instruction x) { return (unsigned)(x.low >> 16) & 0xFF; }

static int adds(instruction x) { return (x.low & 0xFFFF) == FFMA && sum(x) == (x.high & 0xFF); }

/* Paces the `count` FFMAs from code, which have the factor `which` in common. */
static void pace(unsigned char *code, size_t count, int which) {
    for (size_t i = 0; i < count; i++) {
        const int last = i % PERIOD == PERIOD - 1 || i + 1 == count;
        uint64_t high = at(code, i).high & ~(KEEPS | YIELDS_NOT);
        if (!last) high |= YIELDS_NOT | UINT64_C(1) << (122 - 64 + which);
        write(code + i * 16 + 8, high);
    }
}

/* Paces a kernel's runs; how many FFMAs they have. */
static size_t pace_kernel(unsigned char *code, size_t count) {
    size_t paced = 0;
    for (size_t i = 0; i < count;) {
        size_t most = 1;
        int which = 0;
        for (int w = 0; w < 2 && adds(at(code, i)); w++) {
            const unsigned scale = factor(at(code, i), w);
            size_t n = 1;
            while (i + n < count && sum(at(code, i + n - 1)) != scale && adds(at(code, i + n)) &&
                   factor(at(code, i + n), w) == scale)
                n++;
            if (n > most) {
                most = n;
                which = w;
            }
        }
        if (most >= SHORTEST) {
            pace(code + i * 16, most, which);
            paced += most;
        }
        i += most;
    }
    return paced;
}

/* The sections with code of an ELF file of 64 bits that begins here. -1: it is not whole. */
static long pace_elf(unsigned char *elf, size_t size) {
    const uint64_t table = read(elf + 40, 8), each = read(elf + 58, 2), sections = read(elf + 60, 2),
                   names = read(elf + 62, 2);
    long paced = 0;
    if (each < 64 || names >= sections || table > size || sections * each > size - table) return -1;
    const uint64_t text = read(elf + table + names * each + 24, 8), room = read(elf + table + names * each + 32, 8);
    if (text > size || room > size - text) return -1;
    for (uint64_t i = 0; i < sections; i++) {
        const unsigned char *s = elf + table + i * each;
        const uint64_t name = read(s, 4), from = read(s + 24, 8), bytes = read(s + 32, 8);
        if (read(s + 4, 4) != 1 /* SHT_PROGBITS */ || name > room || room - name < 6 ||
            memcmp(elf + text + name, ".text.", 6))
            continue;
        if (from > size || bytes > size - from || bytes % 16) return -1;
        paced += (long)pace_kernel(elf + from, (size_t)bytes / 16);
    }
    return paced;
}

/* All ELF files for GPUs in it; a fatbin aligns what it holds. -1: there is none, or one that is cut short. */
static long pace_all(unsigned char *all, size_t size, long *elfs) {
    long paced = 0;
    *elfs = 0;
    for (size_t i = 0; i + 64 <= size; i += 8) {
        if (memcmp(all + i, "\177ELF\2\1", 6) || read(all + i + 18, 2) != EM_CUDA) continue;
        const long n = pace_elf(all + i, size - i);
        if (n < 0) return -1;
        paced += n;
        ++*elfs;
    }
    return *elfs ? paced : -1;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fputs("pace FILE: one file of kernels is wanted\n", stderr);
        return 1;
    }
    const char *wrong = "cannot be opened";
    unsigned char *all = NULL;
    long paced = 0, elfs = 0;
    FILE *f = fopen(argv[1], "r+b");
    if (f) {
        const long size = fseek(f, 0, SEEK_END) ? -1 : ftell(f);
        all = size > 0 ? malloc((size_t)size) : NULL;
        if (!all || fseek(f, 0, SEEK_SET) || fread(all, 1, (size_t)size, f) != (size_t)size) wrong = "cannot be read";
        else if ((paced = pace_all(all, (size_t)size, &elfs)) < 0)
            wrong = "holds no code, or code that is compressed or cut short";
        else if (fseek(f, 0, SEEK_SET) || fwrite(all, 1, (size_t)size, f) != (size_t)size) wrong = "cannot be written";
        else wrong = NULL;
        if (fclose(f) && !wrong) wrong = "cannot be written";
    }
    free(all);
    if (wrong) fprintf(stderr, "pace: %s: %s\n", argv[1], wrong);
    else printf("pace: %ld additions of %ld ELF files\n", paced, elfs);
    return wrong != NULL;
}
