/* CRC-32C (Castagnoli, reflected 0x82F63B78), in hardware where the processor has SSE4.2.
 *
 * The crc32 instruction has a latency of three cycles and a throughput of one, so long inputs are
 * cut into three blocks whose checksums run side by side and are joined afterwards: advancing a
 * checksum over a block of zeros is linear over GF(2), hence four table look-ups. The portable
 * version eats eight bytes a step with eight tables ("slicing by 8", Kounavis and Berry, 2005).
 */
#ifndef FASTSEQ_CRC32C_H
#define FASTSEQ_CRC32C_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define FASTSEQ_HAVE_SSE42 1
#include <nmmintrin.h>
#endif

#define FASTSEQ_CRC_POLYNOMIAL 0x82F63B78u
#define FASTSEQ_CRC_LONG_BITS 13 /* blocks of 8,192 bytes: the join costs nothing */
#define FASTSEQ_CRC_SHORT_BITS 8 /* blocks of 256 bytes: worth it from 768 bytes on */

static uint32_t fastseq_crc_table[8][256];
static uint32_t fastseq_crc_shift_long[4][256];
static uint32_t fastseq_crc_shift_short[4][256];
static int fastseq_crc_hardware_found;

/* Product of a 32 x 32 matrix over GF(2), given by its columns, and a vector. */
static uint32_t fastseq_crc_times(const uint32_t *matrix, uint32_t vector) {
    uint32_t product = 0;
    for (int bit = 0; vector != 0; vector >>= 1, bit++) {
        if (vector & 1u) product ^= matrix[bit];
    }
    return product;
}

/* Tables of the operator "advance over 2**bits zero bytes", one per byte of the checksum. */
static void fastseq_crc_shift_tables(uint32_t tables[4][256], int bits) {
    uint32_t matrix[32], square[32];
    for (int bit = 0; bit < 32; bit++) {
        uint32_t crc = (uint32_t)1 << bit;
        matrix[bit] = (crc >> 8) ^ fastseq_crc_table[0][crc & 0xff];
    }
    for (; bits > 0; bits--) {
        for (int bit = 0; bit < 32; bit++) square[bit] = fastseq_crc_times(matrix, matrix[bit]);
        memcpy(matrix, square, sizeof matrix);
    }
    for (int byte = 0; byte < 4; byte++) {
        for (uint32_t value = 0; value < 256; value++) {
            tables[byte][value] = fastseq_crc_times(matrix, value << (8 * byte));
        }
    }
}

static void fastseq_crc_prepare(void) {
    for (uint32_t value = 0; value < 256; value++) {
        uint32_t crc = value;
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc >> 1) ^ (FASTSEQ_CRC_POLYNOMIAL & (0u - (crc & 1u)));
        }
        fastseq_crc_table[0][value] = crc;
    }
    for (int step = 1; step < 8; step++) {
        for (int value = 0; value < 256; value++) {
            uint32_t crc = fastseq_crc_table[step - 1][value];
            fastseq_crc_table[step][value] = (crc >> 8) ^ fastseq_crc_table[0][crc & 0xff];
        }
    }
    fastseq_crc_shift_tables(fastseq_crc_shift_long, FASTSEQ_CRC_LONG_BITS);
    fastseq_crc_shift_tables(fastseq_crc_shift_short, FASTSEQ_CRC_SHORT_BITS);
#ifdef FASTSEQ_HAVE_SSE42
    __builtin_cpu_init();
    fastseq_crc_hardware_found = __builtin_cpu_supports("sse4.2") ? 1 : 0;
#endif
}

static uint32_t fastseq_crc_portable(uint32_t crc, const unsigned char *data, size_t length) {
    crc = ~crc;
    for (; length >= 8; data += 8, length -= 8) {
        uint32_t low = crc ^ ((uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 |
                              (uint32_t)data[3] << 24);
        crc = fastseq_crc_table[7][low & 0xff] ^ fastseq_crc_table[6][(low >> 8) & 0xff] ^
              fastseq_crc_table[5][(low >> 16) & 0xff] ^ fastseq_crc_table[4][low >> 24] ^
              fastseq_crc_table[3][data[4]] ^ fastseq_crc_table[2][data[5]] ^
              fastseq_crc_table[1][data[6]] ^ fastseq_crc_table[0][data[7]];
    }
    for (; length > 0; data++, length--) {
        crc = (crc >> 8) ^ fastseq_crc_table[0][(crc ^ *data) & 0xff];
    }
    return ~crc;
}

#ifdef FASTSEQ_HAVE_SSE42

static inline uint32_t fastseq_crc_shift(uint32_t tables[4][256], uint64_t crc) {
    return tables[0][crc & 0xff] ^ tables[1][(crc >> 8) & 0xff] ^ tables[2][(crc >> 16) & 0xff] ^
           tables[3][(crc >> 24) & 0xff];
}

static inline uint64_t fastseq_crc_word(const unsigned char *data) {
    uint64_t word;
    memcpy(&word, data, sizeof word);
    return word;
}

/* Three neighbouring blocks of `block` bytes (a multiple of eight) at once. */
__attribute__((target("sse4.2"))) static inline uint64_t fastseq_crc_three(
    uint64_t crc, const unsigned char *data, size_t block, uint32_t tables[4][256]) {
    uint64_t second = 0, third = 0;
    for (const unsigned char *end = data + block; data < end; data += 8) {
        crc = _mm_crc32_u64(crc, fastseq_crc_word(data));
        second = _mm_crc32_u64(second, fastseq_crc_word(data + block));
        third = _mm_crc32_u64(third, fastseq_crc_word(data + 2 * block));
    }
    second ^= fastseq_crc_shift(tables, crc);
    return third ^ fastseq_crc_shift(tables, second);
}

__attribute__((target("sse4.2"))) static uint32_t fastseq_crc_sse42(
    uint32_t value, const unsigned char *data, size_t length) {
    const size_t wide = (size_t)1 << FASTSEQ_CRC_LONG_BITS;
    const size_t narrow = (size_t)1 << FASTSEQ_CRC_SHORT_BITS;
    uint64_t crc = (uint32_t)~value;
    for (; length >= 3 * wide; data += 3 * wide, length -= 3 * wide) {
        crc = fastseq_crc_three(crc, data, wide, fastseq_crc_shift_long);
    }
    for (; length >= 3 * narrow; data += 3 * narrow, length -= 3 * narrow) {
        crc = fastseq_crc_three(crc, data, narrow, fastseq_crc_shift_short);
    }
    for (; length >= 8; data += 8, length -= 8) {
        crc = _mm_crc32_u64(crc, fastseq_crc_word(data));
    }
    for (; length > 0; data++, length--) {
        crc = _mm_crc32_u8((uint32_t)crc, *data);
    }
    return ~(uint32_t)crc;
}

#endif

static uint32_t fastseq_crc(uint32_t crc, const unsigned char *data, size_t length) {
#ifdef FASTSEQ_HAVE_SSE42
    if (fastseq_crc_hardware_found) return fastseq_crc_sse42(crc, data, length);
#endif
    return fastseq_crc_portable(crc, data, length);
}

#endif
